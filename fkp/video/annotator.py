"""A clip with the keypoints of its faces drawn on every frame, and the numbers as JSON and CSV.

    for progress in video.annotate("in.mp4", "out.mp4", model):
        print(progress.frames, progress.total)

Frames are read, processed and written one by one.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import json
import os
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fkp import draw, outputs, report
from fkp.tracking import TrackedFaces, Tracker
from fkp.video.clip_io import KINDS, Clip, ClipError, Film, Frame, Limits

if TYPE_CHECKING:
    from fkp.pipeline import FaceKeypoints

CSV_COLUMNS: tuple[str, ...] = ("frame", "time", "face", *report.FACE_COLUMNS)
"""One row a face and frame: the frame's number from 0, its time in seconds, the face's number from 1, which
it keeps throughout the clip, and `report.FACE_COLUMNS`."""


@dataclass(frozen=True)
class Progress:
    """How far it is: `frames` done of about `total`, up to `time` of `seconds` of the clip (None where the
    file does not say), in `elapsed` seconds of work; `faces` seen so far, and runs of the detector."""

    frames: int
    total: int | None
    time: float
    seconds: float | None
    elapsed: float
    faces: int
    detector_runs: int

    @property
    def share(self) -> float | None:
        """What is done of the clip, 0..1."""
        return min(self.frames / self.total, 1.0) if self.total else None

    @property
    def left(self) -> float | None:
        """Seconds of work that are left if it goes on like that."""
        return self.elapsed * (1 / self.share - 1) if self.share else None


def annotate(
    source: str | Path,
    target: str | Path | None,
    model: FaceKeypoints,
    *,
    json_file: str | Path | None = None,
    csv_file: str | Path | None = None,
    name: str | None = None,
    limits: Limits | None = None,
    style: draw.Style | None = None,
    numbers: bool = True,
    smoothing: bool = True,
    min_score: float | None = None,
    max_faces: int | None = None,
    threads: int = 0,
    recorded: str | Path | None = None,
) -> Generator[Progress, bool | None]:
    """Follow the faces of a clip: yields after every frame; the files are there when it has ended.

    `target` becomes the clip with its faces drawn on it, as `style` says, each with its number if `numbers`;
    its ending, one of `clip_io.KINDS`, says what kind of file. `json_file` and `csv_file` get the keypoints
    in every frame; `name` is what the JSON calls the clip, by default `source`. Any of the three may be None.
    Without `smoothing` the keypoints are as the network gives them. `min_score` and `max_faces` are as in
    `tracking.Tracker`; `threads` are for FFmpeg's decoder and for its encoder, 0 leaves them to it. With
    `recorded`, the JSON file that an earlier run wrote of this clip, its faces are drawn and no network runs.

    To stop with what there is, send True. To cancel, close the generator: then no file is left and none has
    changed. After an error none has changed either, but the keypoints until there are kept beside, as
    `outputs.part` names them.
    Raises ClipError with one sentence for a source that is no clip, is damaged, or beyond the `limits`, and
    for a target that cannot be written; OSError for JSON and CSV.
    """
    began = time.perf_counter()
    _check_targets(source, [Path(path) for path in (target, json_file, csv_file) if path is not None])
    if target is not None:
        _kind(Path(target))
    with contextlib.ExitStack() as held:
        files = held.enter_context(_Together())
        clip = held.enter_context(Clip(source, limits, threads))
        film = None
        if target is not None:
            film = _Drawn(files, Path(target), clip, style, numbers, threads)
            held.callback(film.abandon)
        made: list[_Drawn | _Json | _Csv] = [film] if film else []
        if json_file is not None:
            made.append(_Json(files, Path(json_file), clip, os.fsdecode(source) if name is None else name))
        if csv_file is not None:
            made.append(_Csv(files, Path(csv_file)))
        tracker: Tracker | _Recorded
        if recorded is not None:
            tracker = _Recorded(Path(recorded))
        else:
            tracker = Tracker(model, min_score=min_score, max_faces=max_faces, smoothing=smoothing)
        faces_seen = 0
        for part in clip:
            if isinstance(part, Frame):
                faces = tracker(part.image, part.time)
                for output in made:
                    output.add(part, faces)
                files.begun = True
                faces_seen = max(faces_seen, *faces.ids.tolist(), 0)
                elapsed = time.perf_counter() - began
                done = part.number + 1, clip.frames, part.time, clip.seconds
                if (yield Progress(*done, elapsed, faces_seen, tracker.detector_runs)):
                    break
            elif film:
                film.add_sound(part)
        for output in made:
            output.close()
        files.appear()


def _kind(target: Path) -> str:
    """What kind of file a name means."""
    kind = KINDS.get(target.suffix.lower())
    if kind is None:
        raise ClipError(f"{target}: a video's name has to end in {', '.join(KINDS)}")
    return kind


def _check_targets(source: str | Path, targets: list[Path]) -> None:
    """Said before the work, not after it."""
    for i, target in enumerate(targets):
        if not target.parent.is_dir():
            raise ClipError(f"{target}: there is no folder {target.parent}")
        if not outputs.is_file(target) or not outputs.is_writable(target):
            raise ClipError(f"{target}: no file can be written there")
        if target.exists() and os.path.exists(source) and target.samefile(source):
            raise ClipError(f"{target}: is the clip itself, which would be overwritten")
        if target in targets[:i]:
            raise ClipError(f"{target}: is to be written twice")


class _Together:
    """Files that appear under their names all at once, or not at all."""

    def __init__(self) -> None:
        self._names: dict[Path, Path] = {}
        self._numbers: list[IO[str]] = []
        self._claims = contextlib.ExitStack()
        self.begun = False

    def __enter__(self) -> Self:
        return self

    def new(self, path: Path) -> Path:
        """Where to write, for the time being, what is to appear at a path."""
        unfinished = outputs.part(path)
        self._claims.enter_context(outputs.claimed(unfinished))
        self._names[unfinished] = path
        return unfinished

    def open(self, path: Path) -> IO[str]:
        """A text file that is to appear at a path; after an error what was written of it is kept."""
        file = self.new(path).open("w", newline="", encoding="utf-8")
        self._numbers.append(file)
        return file

    def appear(self) -> None:
        for path in self._names.values():
            outputs.appear(path)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for file in self._numbers:
            with contextlib.suppress(OSError):
                file.close()
        kept = {Path(file.name) for file in self._numbers if self.begun and kind not in (None, GeneratorExit)}
        for unfinished in self._names.keys() - kept:
            unfinished.unlink(missing_ok=True)
        self._claims.close()


class _Drawn:
    """The film: every frame with its faces drawn on it."""

    def __init__(
        self, files: _Together, path: Path, clip: Clip, style: draw.Style | None, numbers: bool, threads: int
    ) -> None:
        self._film = Film(files.new(path), _kind(path), clip, name=str(path), threads=threads)
        self._style, self._numbers = style, numbers
        self.add_sound, self.close, self.abandon = self._film.add_sound, self._film.close, self._film.abandon

    def add(self, frame: Frame, faces: TrackedFaces) -> None:
        picture = draw.draw(frame.image, faces, self._style)
        if self._numbers:
            write_numbers(picture, faces)
        self._film.add(frame, picture)


class _Json:
    """The keypoints as JSON, a line for each frame."""

    def __init__(self, files: _Together, path: Path, clip: Clip, name: str) -> None:
        self._path, self._file = path, files.open(path)
        width, height = clip.size_wh
        head = json.dumps({"video": name, "width": width, "height": height})
        with outputs.naming(path):
            self._frames = report.JsonArray(self._file, head[:-1] + ', "frames": [\n', "]}\n", rewind=True)

    def add(self, frame: Frame, faces: TrackedFaces) -> None:
        each = zip(faces.ids.tolist(), report.face_records(faces), strict=True)
        records = [{"face": number} | face | {"number": number} for number, face in each]
        with outputs.naming(self._path):
            self._frames.add({"frame": frame.number, "time": round(frame.time, 6), "faces": records})

    def close(self) -> None:
        with outputs.naming(self._path):
            self._file.close()


class _Recorded:
    """In the place of a tracker: the faces of frame after frame as `_Json` wrote them."""

    detector_runs = 0

    def __init__(self, path: Path) -> None:
        self._frames = iter(json.loads(path.read_text(encoding="utf-8"))["frames"])

    def __call__(self, image: np.ndarray, time: float) -> TrackedFaces:
        faces: list[dict[str, Any]] = next(self._frames, {"faces": []})["faces"]
        if not faces:
            return TrackedFaces.none()
        known = faces[0]["visibility"] is not None
        names = ("box", "score", "keypoints", "keypoint_scores")
        boxes, scores, keypoints, keypoint_scores = (
            np.array([face[name] for face in faces]) for name in names
        )
        visibility = np.array([face["visibility"] for face in faces]) if known else None
        ids = np.array([face["face"] for face in faces])
        return TrackedFaces(boxes, scores, keypoints, keypoint_scores, None, visibility, ids)  # type: ignore[arg-type]


class _Csv:
    """The keypoints as CSV, `CSV_COLUMNS`."""

    def __init__(self, files: _Together, path: Path) -> None:
        self._path, self._file = path, files.open(path)
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._write([CSV_COLUMNS])

    def add(self, frame: Frame, faces: TrackedFaces) -> None:
        each = zip(faces.ids.tolist(), report.face_records(faces), strict=True)
        self._write([frame.number, round(frame.time, 6), id, *report.face_cells(face)] for id, face in each)

    def _write(self, rows: Iterable[Sequence[Any]]) -> None:
        with outputs.naming(self._path):
            self._writer.writerows(rows)
            self._file.flush()

    def close(self) -> None:
        with outputs.naming(self._path):
            self._file.close()


def write_numbers(picture: np.ndarray, faces: TrackedFaces) -> None:
    """Write each face's number over its head, into the picture (H,W,3) uint8 RGB."""
    height, width = picture.shape[:2]
    for number, (x1, y1, x2, y2) in zip(faces.ids.tolist(), faces.boxes.tolist(), strict=True):
        tile = _tile(str(number), int(np.clip((y2 - y1) / 6, 12, 200)))
        rows, columns = tile.shape[:2]
        # Above the eyebrows, but within the picture.
        left = int(np.clip((x1 + x2 - columns) / 2, 0, max(0, width - columns)))
        top = int(np.clip(y1 - 1.3 * rows, 0, max(0, height - rows)))
        part = picture[top : top + rows, left : left + columns]
        tile = tile[: part.shape[0], : part.shape[1]]
        part[:] = (tile[..., :3] * tile[..., 3:] + part * (1 - tile[..., 3:]) + 0.5).astype(np.uint8)


@functools.lru_cache(maxsize=256)
def _tile(text: str, height: int) -> np.ndarray:
    """Text as high as so many pixels: (h,w,4), RGB 0..255 and alpha 0..1."""
    font = ImageFont.load_default(size=height)
    rim = max(1, height // 8)
    left, top, right, bottom = font.getbbox(text, stroke_width=rim)
    paper = Image.new("RGBA", (round(right - left), round(bottom - top)))
    pen = ImageDraw.Draw(paper)
    pen.text((-left, -top), text, draw.NEUTRAL, font, stroke_width=rim, stroke_fill=(0, 0, 0))
    return np.asarray(paper) / np.array([1, 1, 1, 255], np.float32)
