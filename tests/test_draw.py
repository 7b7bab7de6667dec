"""Drawing: what is drawn where, how thick, and in which colour."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from fkp import scheme
from fkp.draw import COLOURS, CONFIDENCE_COLOURS, RIM, _Sheet, draw, hollow_points, overlay
from fkp.faces import Faces

GREY = 128


def plain(width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def face(size: float, left: float = 0.0, top: float = 0.0, keypoint_score: float = 1.0) -> Faces:
    """One roughly drawn frontal face whose tight box is a square of `size` pixels."""

    def ellipse(cx, cy, rx, ry, start, stop, n):
        turn = np.radians(np.linspace(start, stop, n, endpoint=abs(stop - start) < 360))
        return np.stack([cx + rx * np.cos(turn), cy + ry * np.sin(turn)], axis=1)

    keypoints = np.concatenate([
        ellipse(0.5, 0.2, 0.5, 0.8, 180, 0, 17),
        ellipse(0.27, 0.12, 0.17, 0.12, 190, 350, 5), ellipse(0.73, 0.12, 0.17, 0.12, 190, 350, 5),
        np.stack([np.full(4, 0.5), np.linspace(0.22, 0.5, 4)], axis=1),
        ellipse(0.5, 0.52, 0.1, 0.06, 170, 10, 5),
        ellipse(0.29, 0.25, 0.09, 0.04, 180, 540, 6), ellipse(0.71, 0.25, 0.09, 0.04, 180, 540, 6),
        ellipse(0.5, 0.74, 0.18, 0.08, 180, 540, 12), ellipse(0.5, 0.74, 0.12, 0.03, 180, 540, 8),
    ])  # fmt: skip
    keypoints = (keypoints - keypoints.min(axis=0)) / np.ptp(keypoints, axis=0) * size + (left, top)
    box = [left, top, left + size, top + size]
    return Faces(np.array([box]), np.array([0.97]), keypoints[None], np.full((1, 68), keypoint_score))


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (before != after).any(axis=2)


@pytest.mark.parametrize("size_wh", [(1, 1), (33, 20)])
def test_copy_is_equal_where_there_is_no_face(size_wh):
    picture = plain(*size_wh)
    drawn = draw(picture, Faces.none(), numbers=True, boxes=True, confidence=True)
    assert drawn is not picture and not np.shares_memory(drawn, picture)
    np.testing.assert_array_equal(drawn, picture)


def test_copy_is_equal_where_nothing_is_asked_for():
    picture = plain(120, 120)
    np.testing.assert_array_equal(draw(picture, face(100, 10, 10), points=False, contours=False), picture)


def test_the_input_stays_as_it_is():
    picture = plain(120, 120)
    picture.flags.writeable = False
    assert changed(picture, draw(picture, face(100, 10, 10), numbers=True, boxes=True)).any()


@pytest.mark.parametrize("shape, dtype", [((9, 9), np.uint8), ((9, 9, 4), np.uint8), ((9, 9, 3), np.float32)])
def test_arrays_of_another_shape_or_type_are_refused(shape, dtype):
    image = np.zeros(shape, dtype)
    with pytest.raises(ValueError) as caught:
        draw(image, Faces.none())
    assert str(shape) in str(caught.value)


def test_options_each_add_something():
    picture, faces = plain(420, 420), face(300, 60, 60)
    options = ("points", "contours", "numbers", "boxes")
    nothing = dict.fromkeys(options, False)
    alone = {name: changed(picture, draw(picture, faces, **{**nothing, name: True})) for name in options}
    for name, other in itertools.permutations(options, 2):
        assert (alone[name] & ~alone[other]).sum() > 50, f"{name} adds nothing to {other}"


@pytest.mark.parametrize("x, y", [(50.0, 50.0), (50.3, 49.6), (49.5, 50.5)])
@pytest.mark.parametrize("size", [60, 400])
def test_a_dot_is_centred_on_its_keypoint_within_a_twentieth_of_a_pixel(x, y, size):
    faces = face(size, 100, 100)
    chin = 8
    faces.keypoints[0, chin] = x, y  # far away from the other points
    black = np.zeros((600, 600, 3), np.uint8)
    ink = draw(black, faces, contours=False)[25:76, 25:76].sum(axis=2, dtype=float)
    rows, columns = np.mgrid[25:76, 25:76]
    centre = [(ink * columns).sum() / ink.sum(), (ink * rows).sum() / ink.sum()]
    np.testing.assert_allclose(centre, [x, y], atol=0.05)


def test_strokes_scale_with_the_face():
    def share_of_ink(size):
        black = np.zeros((2 * size, 2 * size, 3), np.uint8)
        return draw(black, face(size, size / 2, size / 2)).mean()

    assert share_of_ink(1000) == pytest.approx(share_of_ink(250), rel=0.02)


def test_a_small_face_stays_visible_under_its_strokes():
    picture = plain(4000, 3000)
    drawn = draw(picture, face(100, 1000, 1000))
    assert changed(picture, drawn)[1000:1100, 1000:1100].mean() < 0.5


def test_dots_on_a_4000_pixel_photo_can_be_seen_on_a_1000_pixel_screen():
    picture = plain(4000, 3000)
    faces = face(400, 1000, 1000)
    x, y = faces.keypoints[0, 8]
    shrunk = cv2.resize(draw(picture, faces), (1000, 750), interpolation=cv2.INTER_AREA).astype(int)
    nearby = shrunk[int(y / 4) - 2 : int(y / 4) + 3, int(x / 4) - 2 : int(x / 4) + 3]
    assert (np.abs(nearby - COLOURS["jaw"]).sum(axis=2).min()) < 60


def test_dots_have_the_colour_of_their_group():
    faces = face(500, 50, 50)
    drawn = draw(plain(600, 600), faces)
    for name, members in scheme.GROUPS.items():
        x, y = np.round(faces.keypoints[0, members[0]]).astype(int)
        assert tuple(drawn[y, x]) == COLOURS[name]
    assert len(set(COLOURS.values())) == len(scheme.GROUPS)


@pytest.mark.parametrize("score, colour", list(zip((0.0, 0.5, 1.0), CONFIDENCE_COLOURS, strict=True)))
def test_confidence_colours_the_dots(score, colour):
    faces = face(500, 50, 50, keypoint_score=score)
    drawn = draw(plain(600, 600), faces, confidence=True, contours=False)
    for x, y in np.round(faces.keypoints[0]).astype(int):
        around = drawn[y - 8 : y + 9, x - 8 : x + 9].reshape(-1, 3)
        assert colour in {tuple(pixel) for pixel in around.tolist()}
        assert (tuple(drawn[y, x]) == colour) == (score > 0.3), "those that are unsure are rings"


def test_points_that_are_unsure_or_hidden_are_rings_and_their_contours_faint():
    sure = face(500, 50, 50)
    scores, visibility = np.ones((1, 68)), np.ones((1, 68))
    scores[0, 0], visibility[0, 16], visibility[0, 45] = 0.1, 0.1, np.nan
    unsure = Faces(sure.boxes, sure.scores, sure.keypoints, scores, None, visibility)
    assert np.flatnonzero(hollow_points(unsure)).tolist() == [0, 16]
    picture = plain(600, 600)
    full, faint = draw(picture, sure), draw(picture, unsure)
    for point in (0, 16):
        x, y = np.round(sure.keypoints[0, point]).astype(int)
        assert tuple(full[y, x]) == COLOURS["jaw"] and tuple(faint[y, x]) != COLOURS["jaw"]
    middle = np.round(sure.keypoints[0, [0, 1]].mean(axis=0)).astype(int)
    (x, y), strength = middle, lambda drawn: np.abs(drawn.astype(int) - picture)[y - 9 : y + 9, x - 9 : x + 9]
    assert 0 < strength(faint).sum() < 0.6 * strength(full).sum()
    np.testing.assert_array_equal(full[200:400, 200:400], faint[200:400, 200:400])


def test_a_face_that_is_a_guess_is_drawn_hollow_sooner():
    assert not hollow_points(face(100, keypoint_score=0.5)).any()
    assert hollow_points(face(100, keypoint_score=0.45)).all()


@pytest.mark.parametrize("left, top", [(-160, -150), (170, 180)])
def test_a_face_beyond_the_edge_is_drawn_as_far_as_it_shows(left, top):
    picture = plain(360, 330)
    # A large face, whose strokes and numbers are the same on both pictures.
    whole = draw(plain(860, 860), face(450, left + 200, top + 200), numbers=True)
    drawn = draw(picture, face(450, left, top), numbers=True)
    assert changed(picture, drawn).any()
    # cv2 cuts lines to whole pixels at the edge, which changes their smooth rims there a little.
    np.testing.assert_allclose(drawn.astype(int), whole[200:530, 200:560].astype(int), atol=32)


@pytest.mark.parametrize("left, top", [(-900, -900), (500, 10), (-1e7, 1e7)])
def test_a_face_wholly_outside_leaves_the_picture_as_it_is(left, top):
    picture = plain(120, 110)
    drawn = draw(picture, face(100, left, top), numbers=True, boxes=True)
    np.testing.assert_array_equal(drawn, picture)


def test_a_face_of_one_pixel_is_drawn():
    keypoints = np.full((1, 68, 2), 5.0)
    faces = Faces(np.array([[5, 5, 5, 5]]), np.ones(1), keypoints, np.ones((1, 68)))
    picture = plain(11, 11)
    assert changed(picture, draw(picture, faces, numbers=True, boxes=True))[5, 5]


def test_two_faces_are_both_drawn():
    picture = plain(300, 150)
    one, other = face(100, 20, 20), face(100, 170, 20)
    both = Faces(*(np.concatenate([getattr(f, name) for f in (one, other)]) for name in vars(one)))
    seen = changed(picture, draw(picture, both))
    np.testing.assert_array_equal(
        seen, changed(picture, draw(picture, one)) | changed(picture, draw(picture, other))
    )


SKINS = [(255, 224, 196), (198, 134, 66), (92, 56, 33), (255, 255, 255), (0, 0, 0)]


@pytest.mark.parametrize("skin", SKINS)
@pytest.mark.parametrize("name", COLOURS)
def test_colours_stand_out_from_their_rim_on_any_skin(name, skin):
    alpha = RIM[3] / 255
    rim = tuple((1 - alpha) * channel for channel in skin)
    assert _contrast(COLOURS[name], rim) > 2


# Machado, Oliveira & Fernandes: A physiologically-based model for simulation of color vision deficiency, 2009
# fmt: off
COLOUR_BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039],
    ],
}
NEIGHBOURS = [
    ("jaw", "right_eyebrow"), ("jaw", "left_eyebrow"), ("jaw", "outer_lips"),
    ("right_eyebrow", "left_eyebrow"), ("right_eyebrow", "right_eye"), ("left_eyebrow", "left_eye"),
    ("right_eye", "left_eye"), ("right_eye", "nose_bridge"), ("left_eye", "nose_bridge"),
    ("nose_bridge", "nose_tip"), ("nose_tip", "outer_lips"), ("outer_lips", "inner_lips"),
]
# fmt: on


@pytest.mark.parametrize("eyes", COLOUR_BLINDNESS)
def test_neighbouring_groups_differ_in_colour_blind_eyes(eyes):
    def lab(colour):
        seen = np.clip(np.array(COLOUR_BLINDNESS[eyes]) @ _linear(colour), 0, 1)
        srgb = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
        return cv2.cvtColor(srgb.astype(np.float32).reshape(1, 1, 3), cv2.COLOR_RGB2LAB)[0, 0]

    for one, other in NEIGHBOURS:
        difference = np.linalg.norm(lab(COLOURS[one]) - lab(COLOURS[other]))
        assert difference > 15, (one, other)  # about 2 is just visible


def _linear(colour):
    values = np.array(colour) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _contrast(one, other):
    """Contrast ratio of WCAG 2."""
    light, dark = sorted((float(_linear(c) @ (0.2126, 0.7152, 0.0722)) for c in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_mesh_joins_points_faintly_and_lies_below_the_rest():
    picture, faces = plain(420, 420), face(300, 60, 60)
    nothing = {"points": False, "contours": False}
    mesh = draw(picture, faces, **nothing, mesh=True)
    a, b = faces.keypoints[0, 1], faces.keypoints[0, 36]  # joined by the mesh only
    x, y = np.round((a + b) / 2).astype(int)
    near = mesh[y - 1 : y + 2, x - 1 : x + 2].astype(int)
    assert (near.max(axis=(0, 1)) > GREY + 20).all() and near.max() < 255
    x, y = np.round(faces.keypoints[0, 36]).astype(int)
    both = draw(picture, faces, contours=False, mesh=True)
    assert tuple(both[y, x]) == COLOURS["right_eye"]


def test_dots_grow_with_the_point_size():
    def ink(point_size):
        black = np.zeros((600, 600, 3), np.uint8)
        drawn = draw(black, face(400, 100, 100), contours=False, point_size=point_size)
        return np.count_nonzero(drawn.any(axis=2))

    assert ink(2) > 2.5 * ink(1) > 2.5 * 1.5 * ink(0.5)


@pytest.mark.parametrize("size_wh", [(1, 1), (40, 30)])
def test_an_overlay_of_no_face_is_empty(size_wh):
    width, height = size_wh
    assert not overlay((height, width), Faces.none()).any()


@pytest.mark.parametrize("options", [{}, {"numbers": True, "boxes": True, "mesh": True}])
def test_an_overlay_laid_on_the_picture_is_what_draw_gives(options):
    picture = np.random.default_rng(0).integers(0, 255, (240, 320, 3)).astype(np.uint8)
    faces = face(150, 60, 40)
    strokes = overlay((240, 320), faces, **options)
    alpha = strokes[..., 3:] / 255
    laid = strokes[..., :3] * alpha + picture * (1 - alpha)
    # Smooth edges of letters are brighter in places than their alpha allows.
    assert (np.abs(laid - draw(picture, faces, **options)) > 2).mean() < 1e-3


def test_overlays_of_faces_that_overlap_are_laid_over_each_other():
    one, other = face(150, 20, 20), face(150, 50, 40)
    both = Faces(*(np.concatenate([getattr(f, name) for f in (one, other)]) for name in vars(one)))
    strokes = overlay((240, 240), both)
    alpha = strokes[..., 3:] / 255
    laid = strokes[..., :3] * alpha + plain(240, 240) * (1 - alpha)
    np.testing.assert_allclose(laid, draw(plain(240, 240), both), atol=3)


@pytest.mark.parametrize("size", [20, 60, 149, 300])
def test_numbers_never_overlap(size):
    """Counted in ink: no pixel belongs to two numbers, each drawn alone."""
    faces = face(size, 100, 100)
    picture = np.zeros((size + 200, size + 200, 3), np.uint8)
    sheet = _Sheet(picture.shape[:2], faces.keypoints[0], faces.boxes[0])
    places = sheet.number_places(faces.keypoints[0])
    assert len(places) == scheme.COUNT if size >= 300 else len(places) >= 8
    times = np.zeros(picture.shape[:2], int)
    for point, centre in places.items():
        alone = _Sheet(picture.shape[:2], faces.keypoints[0], faces.boxes[0])
        alone._write([str(point)], centre[None], [(255, 255, 255)], alone.number_height)
        canvas = np.zeros((*picture.shape[:2], 4), np.uint8)
        alone.lay_on(canvas)
        times += canvas[..., 3] > 100  # fainter is the blur of an edge that falls between two pixels
    assert times.max() == 1


def test_the_corners_of_eyes_and_mouth_are_numbered_even_on_a_small_face():
    faces = face(60, 100, 100)
    places = _Sheet((300, 300), faces.keypoints[0], faces.boxes[0]).number_places(faces.keypoints[0])
    assert {8, 30, 36, 45, 48, 54} <= places.keys()


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="colour"):
        draw(plain(9, 9), Faces.none(), colour=True)
