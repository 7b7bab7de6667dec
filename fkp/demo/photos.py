"""A visitor's photos: read, faces found once, and shown, enlarged and saved from what was found.

What is kept in memory of a photo is its faces, one picture of it for the screen and one of every face, all as
JPEG; the file that was uploaded is read again only to save the photo, at full size up to `FULL_PIXELS`.
"""

from __future__ import annotations

import io
import os
import secrets
import tempfile
import zipfile
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from fkp import draw, geometry, images, report
from fkp.demo import fair_share, uploads
from fkp.demo.settings import Settings
from fkp.faces import Faces
from fkp.pipeline import FaceKeypoints

SHOWN_SIDE = 1600
"""Pixels of the longer side of what is sent to the screen; a smaller photo is sent as it is."""
FACE_SIDE = 480
"""Pixels of an enlarged face; and the part of it around the face's tight box, as `margin` has it."""
FACE_MARGIN = 1.5
THUMBNAIL_SIDE = 96
FULL_PIXELS = 40_000_000
"""A photo with more pixels is processed, and saved, at a half or a quarter of its width and height."""
MAX_BYTES = 400_000_000
"""Memory that one photo may take while it is decoded and processed."""
ALL_BYTES = 800_000_000
"""The same of all photos together: as many are let in at once as that is enough for."""
ALBUM_BYTES = 60_000_000
"""What the pictures of one visitor's album may take; of the photos beyond, no face is shown enlarged."""

_memory = fair_share.FairShare(ALL_BYTES)


@dataclass(frozen=True, eq=False)
class Face:
    """One face by itself, upright: its picture as JPEG, a small one, and where its points are in them."""

    picture: bytes
    thumbnail: bytes
    faces: Faces


@dataclass(frozen=True, eq=False)
class Photo:
    """One photo of a visitor: what was found in it, or `problem`, a sentence that goes on after its name.

    `shown` is the picture for the screen as JPEG, `more_faces` says that `faces` are not all of them,
    `complete` whether its file has all of it. `saved_wh` is the size at which it is processed and saved,
    `removed` how many faces its visitor left out.
    """

    path: Path
    problem: str = ""
    size_wh: tuple[int, int] = (0, 0)
    faces: Faces = field(default_factory=Faces.none)
    more_faces: bool = False
    shown: bytes = b""
    thumbnail: bytes = b""
    enlarged: tuple[Face, ...] = ()
    complete: bool = True
    saved_wh: tuple[int, int] = (0, 0)
    removed: int = 0

    @property
    def name(self) -> str:
        """As the file is called on the server, which has made the visitor's name for it harmless."""
        return self.path.name

    @property
    def bytes(self) -> int:
        """Of its pictures in memory."""
        faces = sum(len(face.picture) + len(face.thumbnail) for face in self.enlarged)
        return len(self.shown) + len(self.thumbnail) + faces

    @property
    def shown_wh(self) -> tuple[int, int]:
        """Width and height of the picture for the screen."""
        return _fitted(self.size_wh, min(SHOWN_SIDE, max(self.size_wh)))


@dataclass(frozen=True, eq=False)
class Album:
    """The photos of one visitor; `at` is the one that is shown, and `face` the face of it, if any.

    `files` are all that were chosen, those that are yet to be processed as well; `wanted` is what the sliders
    said when they were processed. `first` is the file that is looked at, or will be.
    """

    photos: tuple[Photo, ...] = ()
    at: int = 0
    face: int | None = None
    files: tuple[Path, ...] = ()
    wanted: tuple[float, float] | None = None
    first: Path | None = None
    key: str = field(default_factory=lambda: secrets.token_hex(8))
    """Of the files that were saved of it: there is never more than one of a kind."""

    @property
    def photo(self) -> Photo | None:
        return self.photos[self.at] if self.photos else None

    def with_photo(self, photo: Photo) -> Album:
        """With one more photo, in the order of the files; the first that comes is shown."""
        if sum(each.bytes for each in self.photos) + photo.bytes > ALBUM_BYTES:
            photo = replace(photo, enlarged=())
        numbers = {path: number for number, path in enumerate(self.files)}
        number = numbers.get(photo.path, len(numbers))
        place = sum(numbers.get(each.path, len(numbers)) <= number for each in self.photos)
        album = replace(self, photos=(*self.photos[:place], photo, *self.photos[place:]))
        return replace(album, at=self.at + (place <= self.at)) if self.photos else album.go_to(0)

    def go_to(self, at: Any) -> Album:
        """At another photo and its first face; as it is for what is no photo's number."""
        if not is_index(at, len(self.photos)):
            return self
        photo = self.photos[at]
        return replace(self, at=at, face=0 if photo.enlarged else None, first=photo.path)

    def without(self, face: Any) -> Album:
        """Without a face of the photo; as it is for what is no face's number."""
        if self.photo is None or not is_index(face, len(self.photo.faces)):
            return self
        keep = [i for i in range(len(self.photo.faces)) if i != face]
        enlarged = tuple(self.photo.enlarged[i] for i in keep if self.photo.enlarged)
        removed = self.photo.removed + 1
        photo = replace(self.photo, faces=self.photo.faces[keep], enlarged=enlarged, removed=removed)
        chosen = self.face or 0
        chosen = min(chosen - (face < chosen), len(keep) - 1)
        rest = (*self.photos[: self.at], photo, *self.photos[self.at + 1 :])
        return replace(self, photos=rest, face=chosen if enlarged else None)

    def choose(self, face: Any) -> Album:
        """At another face of the photo; as it is for what is no face's number."""
        if self.photo is None or not is_index(face, len(self.photo.enlarged)):
            return self
        return replace(self, face=face)


def is_index(number: Any, length: int) -> bool:
    """Whether what a browser sent, which may be anything, is the number of one of so many things."""
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < length


def read(path: Path, settings: Settings) -> images.Reduced:
    """A photo's pixels (H,W,3) uint8 RGB, within the limits of the settings; large ones at a half or less.

    Raises images.ImageError with a sentence that begins with the photo's name and knows no folder.
    """
    if not path.is_file():
        raise images.ImageError(f"{path.name} is no longer here. Please choose it again.")
    try:
        if path.stat().st_size > settings.max_file_size:
            raise images.ImageError(f"{path}: is larger than {settings.max_file_size / 1e6:g} MB")
        size_wh = images.size_wh(path)
        pixels = size_wh[0] * size_wh[1]
        if pixels > settings.max_pixels:
            most = f"the most that are read here are {settings.max_pixels / 1e6:g} million"
            raise images.ImageError(f"{path}: has {pixels / 1e6:.0f} million pixels, {most}")
        reduction = _reduction(pixels)
        if images.bytes_needed(path, reduction) > MAX_BYTES:
            what = (
                f"{pixels / 1e6:.0f} million pixels in a kind of file that takes much memory; JPEG takes less"
            )
            raise images.ImageError(f"{path}: has {what}")
        return images.read_file(path, max_pixels=settings.max_pixels, reduction=reduction)
    except images.ImageError as error:
        reason = str(error).replace(str(path), path.name).removeprefix(f"{path.name}: ")
        raise images.ImageError(f"{path.name} {reason}. Please choose another photo.") from None


@contextmanager
def held(path: Path, settings: Settings, visitor: str = "") -> Iterator[images.Reduced]:
    """What `read` gives, once there is memory for it; that is taken up as long as the picture is held."""
    try:
        width, height = images.size_wh(path)
        needed = images.bytes_needed(path, _reduction(width * height))
    except images.ImageError:
        needed = 0  # `read` says why
    with _memory.taken(needed, visitor):
        yield read(path, settings)


def _reduction(pixels: int) -> int:
    """By how much a photo is made smaller while it is decoded."""
    return next((factor for factor in (1, 2, 4) if pixels <= factor**2 * FULL_PIXELS), 8)


def in_file(picture: images.Reduced, faces: Faces) -> Faces:
    """Faces of a picture that may have been made smaller, in the pixels of its file."""
    if picture.image.shape[1::-1] == picture.size_wh:
        return faces
    scale = np.array(picture.scale_xy)
    return moved(faces, np.column_stack([np.diag(scale), (scale - 1) / 2]))


def in_picture(picture: images.Reduced, faces: Faces) -> Faces:
    """Faces of a file in the pixels of its picture, which may have been made smaller."""
    if picture.image.shape[1::-1] == picture.size_wh:
        return faces
    scale = 1 / np.array(picture.scale_xy)
    return moved(faces, np.column_stack([np.diag(scale), (scale - 1) / 2]))


def find(
    model: FaceKeypoints, pixels: np.ndarray, most: int, min_score: float | None = None
) -> tuple[Faces, bool]:
    """The largest faces of a picture (H,W,3), and whether there are more than `most`."""
    faces = model(pixels, max_faces=most + 1, min_score=min_score)
    return faces[:most], len(faces) > most


def process(
    model: FaceKeypoints,
    path: Path,
    settings: Settings,
    most: int | None = None,
    min_score: float | None = None,
    visitor: str = "",
) -> Photo:
    """Everything about one photo; what cannot be read becomes its `problem`.

    `most` faces at most, by default as many as the settings say, of at least `min_score`.
    """
    most = min(most or settings.max_faces, settings.max_faces)
    try:
        with held(path, settings, visitor) as picture:
            saved_wh = picture.image.shape[1::-1]
            photo = Photo(path, "", picture.size_wh, complete=picture.complete, saved_wh=saved_wh)
            return _process(model, photo, picture, most, min_score)
    except images.ImageError as error:
        return Photo(path, problem=str(error).removeprefix(f"{path.name} "))


def _process(
    model: FaceKeypoints, photo: Photo, picture: images.Reduced, most: int, min_score: float | None
) -> Photo:
    pixels = picture.image
    with ThreadPoolExecutor(1) as beside:  # while the networks run; on two cores it takes no time
        for_screen = beside.submit(
            _for_screen, pixels, _fitted(photo.size_wh, min(SHOWN_SIDE, max(pixels.shape[:2])))
        )
        faces, more_faces = find(model, pixels, most, min_score)
        enlarged = tuple(_enlarged(pixels, face) for face in faces)
        shown, small = for_screen.result()
    faces = in_file(picture, faces)
    return replace(photo, faces=faces, more_faces=more_faces, shown=shown, thumbnail=small, enlarged=enlarged)


def process_all(
    model: FaceKeypoints,
    paths: Iterable[Path],
    settings: Settings,
    most: int | None = None,
    min_score: float | None = None,
    visitor: str = "",
) -> Generator[Photo]:
    """Everything about several photos, one by one."""
    for path in paths:
        yield process(model, path, settings, most, min_score, visitor)


def thumbnail(path: Path) -> bytes:
    """A small picture of a file that can be read, as JPEG."""
    pixels = images.read(path)
    return _jpeg(_resized(pixels, _fitted(pixels.shape[1::-1], 2 * THUMBNAIL_SIDE)), 80)


def overlay(photo: Photo, style: draw.Style) -> bytes:
    """What is drawn of a photo's faces, as a transparent PNG of its shape, finer than the screen shows it."""
    width, height = _fitted(photo.size_wh, SHOWN_SIDE)
    scale_xy = np.array([width / photo.size_wh[0], height / photo.size_wh[1]])
    faces = moved(photo.faces, np.column_stack([np.diag(scale_xy), (scale_xy - 1) / 2]))
    return _png(draw.overlay((height, width), faces, style))


def enlarged(face: Face, style: draw.Style) -> bytes:
    """The picture of one face with its points drawn, as JPEG; never with a box."""
    pixels = np.asarray(Image.open(io.BytesIO(face.picture)))
    drawn = draw.draw(pixels, face.faces, style, boxes=False, face_numbers=False)
    return _jpeg(drawn, 92, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)


def moved(faces: Faces, matrix: np.ndarray) -> Faces:
    """The faces after an affine map (2,3) over pixel centres; a box becomes the tight one of its corners."""
    linear, offset = matrix[:, :2], matrix[:, 2]
    corners = faces.boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2) @ linear.T + offset
    scale = np.sqrt(abs(np.linalg.det(linear)))
    return Faces(
        np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1),
        faces.scores,
        faces.keypoints @ linear.T + offset,
        faces.keypoint_scores,
        faces.sigmas * scale,
        faces.visibility,
    )


def warm_up(model: FaceKeypoints) -> None:
    """Do once all that a first photo would have to wait for, on an empty one with a face made up."""
    pixels = np.zeros((480, 640, 3), np.uint8)
    model(pixels)
    faces = model.keypoints_at(pixels, np.array([[200, 100, 400, 300]]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "photo.jpg")
        path.write_bytes(_jpeg(pixels, 90))
        photo = process(model, path, Settings())
    photo = replace(photo, faces=faces, enlarged=tuple(_enlarged(pixels, face) for face in faces))
    style = draw.Style(numbers=True, mesh=True, boxes=True)
    overlay(photo, style)
    enlarged(photo.enlarged[0], style)


# --- Saving ---------------------------------------------------------------------------------------------


def save_picture(
    album: Album, style: draw.Style, settings: Settings, folder: Path, kind: str = "png"
) -> Path:
    """The photo that is shown with its faces drawn, as PNG or JPEG of its `saved_wh`; nothing else is in the
    file.

    Raises images.ImageError when its upload is no longer there.
    """
    assert album.photo is not None
    content = _drawn(album.photo, style, settings, kind)
    return _saved(album, folder, _picture_name(album.photo, kind), f"{album.at}-{kind}", content)


def save_pictures(
    album: Album, style: draw.Style, settings: Settings, folder: Path, kind: str = "png"
) -> Path:
    """All photos as `save_picture` draws them, in a ZIP file; those that cannot be read are left out.

    Raises images.ImageError when none is left.
    """
    readable = [photo for photo in album.photos if not photo.problem]
    if not readable:
        raise images.ImageError("None of the photos could be read.")
    names = _all_different([_picture_name(photo, kind) for photo in readable])

    def write(path: Path) -> None:
        done = 0
        with zipfile.ZipFile(path, "w") as archive:  # a picture is compressed already
            for photo, name in zip(readable, names, strict=True):
                try:
                    archive.writestr(name, _drawn(photo, style, settings, kind))
                    done += 1
                except images.ImageError:
                    continue
        if not done:
            raise images.ImageError("The photos are no longer here. Please choose them again.")

    return uploads.saved(folder, "keypoints.zip", f"{album.key}-all-{kind}", write)


def save_json(album: Album, folder: Path) -> Path:
    """What was found in all photos, as `fkp predict --json` writes it."""
    content = report.to_json(_records(album)).encode()
    return _saved(album, folder, _file_name(album, "json"), "json", content)


def save_csv(album: Album, folder: Path) -> Path:
    """What was found in all photos, as `fkp predict --csv` writes it."""
    text = io.StringIO(newline="")
    report.write_csv(text, _records(album))
    return _saved(album, folder, _file_name(album, "csv"), "csv", text.getvalue().encode())


def write_png(folder: Path, name: str, pixels: np.ndarray) -> Path:
    """A picture (H,W,3) as a PNG file of its own folder; OpenCV writes it six times as fast as Pillow."""
    path = uploads.new_file(folder, name)
    path.write_bytes(_png(pixels))
    return path


def _drawn(photo: Photo, style: draw.Style, settings: Settings, kind: str = "png") -> bytes:
    with held(photo.path, settings) as picture:
        drawn = draw.draw(picture.image, in_picture(picture, photo.faces), style)
    return _png(drawn) if kind == "png" else _jpeg(drawn, 92, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)


def _records(album: Album) -> list[dict[str, Any]]:
    return [
        report.record(photo.name, photo.size_wh[::-1], photo.faces, photo.complete)
        for photo in album.photos
        if not photo.problem
    ]


def _picture_name(photo: Photo, kind: str) -> str:
    return f"{photo.path.stem}_keypoints.{kind}"


def _file_name(album: Album, kind: str) -> str:
    first = album.photos[0].path.stem
    return f"{first}_keypoints.{kind}" if len(album.photos) == 1 else f"keypoints.{kind}"


def _all_different(names: Iterable[str]) -> list[str]:
    different: list[str] = []
    for name in names:
        stem, suffix = os.path.splitext(name)
        number, candidate = 1, name
        while candidate.casefold() in {taken.casefold() for taken in different}:
            number += 1
            candidate = f"{stem}_{number}{suffix}"
        different.append(candidate)
    return different


def _saved(album: Album, folder: Path, name: str, kind: str, content: bytes) -> Path:
    """A file of an album, in the place of the last one of its kind."""
    return uploads.saved(folder, name, f"{album.key}-{kind}", lambda path: path.write_bytes(content))


# --- Pixels ---------------------------------------------------------------------------------------------


def _enlarged(pixels: np.ndarray, face: Faces) -> Face:
    """One face (of one) cut out of the whole picture, upright."""
    around = geometry.CropTransform.around_box(face.boxes[0], FACE_SIDE, FACE_MARGIN)
    transform = geometry.upright(face.keypoints[0], FACE_SIDE, FACE_MARGIN) or around
    crop = transform.crop(pixels)
    small = cv2.resize(crop, (THUMBNAIL_SIDE, THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA)
    return Face(_jpeg(crop, 90), _jpeg(small, 80), moved(face, transform.image_to_crop))


def _for_screen(pixels: np.ndarray, shown_wh: tuple[int, int]) -> tuple[bytes, bytes]:
    """The picture for the screen and a small one, as JPEG."""
    shown = _resized(pixels, shown_wh)
    small = _resized(shown, _fitted(shown_wh, 2 * THUMBNAIL_SIDE))
    return _jpeg(shown, 90), _jpeg(small, 80)


def _fitted(size_wh: tuple[int, int], side: int) -> tuple[int, int]:
    """The size of the same shape whose longer side is `side`."""
    factor = side / max(size_wh)
    return max(1, round(size_wh[0] * factor)), max(1, round(size_wh[1] * factor))


def _resized(pixels: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    if pixels.shape[1::-1] == size_wh:
        return pixels
    return cv2.resize(pixels, size_wh, interpolation=cv2.INTER_AREA)


def _jpeg(pixels: np.ndarray, quality: int, sampling: int = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420) -> bytes:
    """As JPEG; thin coloured lines need a `sampling` that keeps colours as fine as lightness."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    return cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def _png(pixels: np.ndarray) -> bytes:
    """As PNG, of RGB or RGBA; what is transparent is taken to be mostly empty."""
    drawn = pixels.shape[2] == 4
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    if hasattr(cv2, "IMWRITE_PNG_FILTER"):  # older versions of OpenCV leave no choice
        # To try all, as OpenCV 5 does, takes twice as long for a photo and four times for what is empty.
        options += [
            cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE if drawn else cv2.IMWRITE_PNG_FILTER_UP,
        ]  # fmt: skip
    order = cv2.COLOR_RGBA2BGRA if drawn else cv2.COLOR_RGB2BGR
    return cv2.imencode(".png", cv2.cvtColor(pixels, order), options)[1].tobytes()
