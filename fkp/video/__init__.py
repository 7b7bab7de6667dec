"""Clips: `annotate` draws keypoints on every frame (`annotator`); `clip_io` reads and writes the files."""

try:
    import av  # noqa: F401
except ImportError as error:
    raise ImportError("clips need PyAV: run 'pip install \"fkp[video]\"'", name="av") from error

from fkp.video.annotator import CSV_COLUMNS, Progress, annotate, write_numbers

__all__ = ["CSV_COLUMNS", "Progress", "annotate", "write_numbers"]
