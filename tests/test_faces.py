"""How faces are shown in a notebook."""

from __future__ import annotations

import base64
import gc
import os
import pickle
import re
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import PIL.Image
import pytest

from fkp import FaceKeypoints, Faces, images

PICTURE = Path(__file__).parents[1] / "examples" / "four_faces.jpg"


@pytest.fixture(scope="module")
def model() -> FaceKeypoints:
    return FaceKeypoints.from_pretrained(passes=1)


def crops(html: str) -> list[np.ndarray]:
    data = re.findall(r'href="data:image/jpeg;base64,([^"]+)"', html)
    return [cv2.imdecode(np.frombuffer(base64.b64decode(each), np.uint8), cv2.IMREAD_COLOR) for each in data]


def test_shown_on_the_picture(model: FaceKeypoints) -> None:
    with PIL.Image.open(PICTURE) as opened:
        opened.load()
    for picture in (PICTURE, str(PICTURE), np.asarray(opened), opened):
        html = model(picture)._repr_html_()
        found = crops(html)
        assert len(found) == 4 and "4 faces" in html
        assert all(crop.shape == (160, 160, 3) and crop.std() > 20 for crop in found)
        svgs = ElementTree.fromstring(f"<body>{html}</body>").iter("svg")
        for svg in svgs:
            places = np.array([(float(c.get("cx", "")), float(c.get("cy", ""))) for c in svg.iter("circle")])
            assert len(places) == 68
            np.testing.assert_allclose((places.min(0) + places.max(0)) / 2, 80, atol=16)  # in the middle


def test_the_picture_is_not_kept(model: FaceKeypoints, tmp_path: Path) -> None:
    image = images.read(PICTURE)
    faces = model(image)
    assert len(crops(faces[1:]._repr_html_())) == 3, "of a subset"
    copy = pickle.loads(pickle.dumps(faces))
    del image
    gc.collect()
    for orphans in (faces, copy):
        html = orphans._repr_html_()
        assert html.count("<svg") == 4 and not crops(html)


def test_few_of_many_and_none() -> None:
    none = Faces.none()
    assert none._repr_html_().endswith("no faces</div>")
    draw = np.random.default_rng(0)
    keypoints = draw.uniform(0, 100, (30, 68, 2))
    boxes = np.concatenate([keypoints.min(1), keypoints.max(1)], axis=1)
    many = Faces(boxes, np.ones(30), keypoints, np.ones((30, 68)))
    html = many._repr_html_()
    assert html.count("<svg") == 12 and "30 faces, 18 not shown" in html


def test_a_path_of_any_kind_is_remembered(root: Path) -> None:
    (entry,) = (each for each in os.scandir(root / "examples") if each.name == "grace_hopper.jpg")
    faces = Faces.none().seen_in(entry)
    assert "no faces" in faces._repr_html_()
    faces = FaceKeypoints.from_pretrained()(entry)
    assert len(faces) == 1 and "data:image/jpeg" in faces._repr_html_()
