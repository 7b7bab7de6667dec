"""Clips: `annotate` draws keypoints on every frame (`annotator`); `clip_io` reads and writes the files."""

from fkp.video.annotator import CSV_COLUMNS, Progress, annotate, write_numbers

__all__ = ["CSV_COLUMNS", "Progress", "annotate", "write_numbers"]
