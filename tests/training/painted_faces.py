"""A data folder in small, whose faces are bright ellipses on dark pictures."""

import shutil
from pathlib import Path

import cv2
import numpy as np

from fkp.config import DetectorConfig
from fkp.training import face_photos

SMALL = DetectorConfig(widths=(8, 8, 16, 16), depths=(1, 1, 1), neck_width=16, input_size=128)


def painted(size_wh: tuple[int, int], box: tuple[int, int, int, int] | None) -> np.ndarray:
    """A dark picture with a bright ellipse that just fills the box."""
    picture = np.full((size_wh[1], size_wh[0], 3), 20, np.uint8)
    if box is not None:
        x1, y1, x2, y2 = box
        y, x = np.mgrid[: size_wh[1], : size_wh[0]]
        inside = ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1
        picture[inside] = 235
    return picture


def write(folder: Path) -> None:
    """A data folder in small: 12 photos a labelled set, 6 without a label, one with something to ignore."""
    rows = ["image,x1,y1,x2,y2,kind,score"]
    rng = np.random.default_rng(0)
    outline = face_photos.ellipses(np.array([[0.0, 0, 1, 1]]))[0]
    for subfolder, (csv, *_) in face_photos.LABELLED.items():
        (folder / subfolder).mkdir(parents=True)
        lines = ["," + ",".join(map(str, range(136)))]
        for i in range(12):
            name = f"Person{i}_{i:02}.png"
            x1, y1 = rng.integers(10, 60, 2).tolist()
            box = (x1, y1, x1 + 60, y1 + 70)
            cv2.imwrite(str(folder / subfolder / name), painted((160, 150), box))
            points = (outline * (60, 70) + (x1, y1)).ravel()
            lines.append(name + "," + ",".join(f"{v:.2f}" for v in points))
            rows.append(f"{subfolder}/{name},{x1},{y1},{x1 + 60},{y1 + 70},labelled,")
        (folder / csv).write_text("\n".join(lines) + "\n")
    (folder / "merl").mkdir()
    shutil.copytree(folder / "300w/afw", folder / face_photos.PROFILES)
    header, first, *rest = (folder / "300w/afw.csv").read_text().splitlines()
    hidden = ",".join(first.split(",")[:-2] + ["", ""])  # a point without a label
    (folder / f"{face_photos.PROFILES}.csv").write_text("\n".join([header, hidden, *rest]) + "\n")
    for subfolder, kind in zip(face_photos.BOXED, ("wider", "people"), strict=True):
        (folder / subfolder).mkdir(parents=True)
        for i in range(6):
            cv2.imwrite(str(folder / subfolder / f"crowd{i}.png"), painted((200, 140), (20, 30, 60, 90)))
            rows.append(f"{subfolder}/crowd{i}.png,20,30,60,90,{kind},")
            rows.append(f"{subfolder}/crowd{i}.png,150,30,170,50,ignore,")
    for subfolder in face_photos.FACELESS:
        (folder / subfolder).mkdir()
        for i in range(6):
            box = (20, 30, 60, 90) if subfolder == "scenes" and i == 0 else None
            cv2.imwrite(str(folder / subfolder / f"photo{i}.png"), painted((120, 140), box))
    rows.append("scenes/photo0.png,20,30,60,90,detected,0.9")
    rows += [f"{place}/photo2.png,20,30,60,90,ignore,0.5" for place in ("scenes", "no_faces")]
    (folder / "face_boxes.csv").write_text("\n".join(rows) + "\n")
