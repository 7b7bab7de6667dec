"""Following faces, with a model that is known: faces are bright patches on a dark ground."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from fkp import FaceKeypoints, Faces, geometry, images, tracking
from fkp.tracking import TrackedFaces, Tracker, likeness, match
from tests import synthetic

EXAMPLES = Path(__file__).parents[1] / "examples"
RATE = 25.0

UNIT = synthetic.face()
UNIT = (UNIT - UNIT.min(axis=0)) / np.ptp(UNIT, axis=0)


def picture(
    *faces: tuple[float, float, int], scene: int = 0, size_wh: tuple[int, int] = (320, 240)
) -> np.ndarray:
    """Faces 40 pixels wide at (x, y), each with the looks of a person's number, in a scene's surroundings."""
    rough = np.random.default_rng(scene).integers(0, 100, (6, 8), np.uint8)
    image = cv2.resize(rough, size_wh, interpolation=cv2.INTER_NEAREST)
    for x, y, person in faces:
        looks = np.random.default_rng(100 + person).integers(150, 256, (5, 5), np.uint8)
        patch = cv2.resize(looks, (40, 40), interpolation=cv2.INTER_LINEAR)
        image[round(y) : round(y) + 40, round(x) : round(x) + 40] = patch
    return np.repeat(image[..., None], 3, axis=2)


class PatchModel:
    """Finds bright patches; points are sure where the box that they are looked for in is about right.

    `detected` are the numbers of the frames that the detector ran on, `blind` whether it sees nothing.
    """

    def __init__(self) -> None:
        self.frame, self.detected, self.boxes, self.blind = -1, [], [], False
        self.min_score: float | None = None

    def detect(self, image: np.ndarray, *, min_score: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        self.detected.append(self.frame)
        self.min_score = min_score
        boxes = np.array([] if self.blind else self._patches(image), np.float32).reshape(-1, 4)
        largest_first = np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(axis=1), kind="stable")
        return boxes[largest_first], np.full(len(boxes), 0.9, np.float32)

    def _patches(self, image: np.ndarray) -> list[list[float]]:
        n, _, stats, _ = cv2.connectedComponentsWithStats((image[..., 0] > 128).astype(np.uint8))
        return [[x, y, x + w - 1, y + h - 1] for x, y, w, h, _ in stats[1:n].tolist()]

    def keypoints_at(self, image: np.ndarray, boxes: np.ndarray) -> Faces:
        self.boxes.append(boxes.copy())
        patches = np.array(self._patches(image)).reshape(-1, 4)
        keypoints, scores = [], []
        for box in boxes:
            overlaps = geometry.iou(box, patches)[0] if len(patches) else np.zeros(1)
            near = patches[overlaps.argmax()] if overlaps.max() > 0.1 else box
            keypoints.append(UNIT * (near[2:] - near[:2]) + near[:2])
            scores.append(np.full(68, 0.8 if overlaps.max() > 0.6 else overlaps.max()))
        n = len(boxes)
        return Faces(
            boxes, np.ones(n), np.array(keypoints).reshape(n, 68, 2), np.array(scores).reshape(n, 68)
        )


def follow(tracker: Tracker, pictures: list[np.ndarray], start: float = 0.0) -> list[TrackedFaces]:
    """The faces in pictures that follow each other at `RATE`."""
    results = []
    for i, image in enumerate(pictures):
        tracker.model.frame += 1  # type: ignore[attr-defined]
        results.append(tracker(image, start + i / RATE))
    return results


@pytest.fixture
def model() -> PatchModel:
    return PatchModel()


@pytest.fixture
def tracker(model: PatchModel) -> Tracker:
    return Tracker(model, smoothing=False)  # type: ignore[arg-type]


def ids(results: list[TrackedFaces]) -> list[list[int]]:
    return [faces.ids.tolist() for faces in results]


# --- The pieces ---------------------------------------------------------------------------------------------


def test_tracked_faces() -> None:
    none = TrackedFaces.none()
    assert len(none) == 0 and none.ids.shape == (0,) and none.ids.dtype == np.int64
    two = TrackedFaces(
        np.zeros((2, 4)), np.zeros(2), np.zeros((2, 68, 2)), np.zeros((2, 68)), ids=np.array([3, 7])
    )
    assert two[1].ids.tolist() == [7] and isinstance(two[1], TrackedFaces)
    assert [face.ids.tolist() for face in two] == [[3], [7]]
    with pytest.raises(ValueError, match=r"ids has shape \(0,\), \(2,\) is needed"):
        TrackedFaces(np.zeros((2, 4)), np.zeros(2), np.zeros((2, 68, 2)), np.zeros((2, 68)))


def test_match() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float32)
    assert match(boxes[:0], boxes) == match(boxes, boxes[:0]) == []
    assert sorted(match(boxes, boxes[::-1])) == [(0, 1), (1, 0)]
    # IoU 0.8 with the second box of the two, 6/14 with the first: each is given once, the best first.
    others = np.array([[24, 0, 34, 10], [20, 0, 28, 10]], np.float32)
    assert match(boxes, others) == [(1, 1)]
    assert match(boxes, others[:1]) == [(1, 0)]
    assert match(boxes, others[:1], least_iou=0.5) == []


def test_likeness() -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(50, 200, (24, 32)).astype(float)
    assert likeness(grey, grey) == pytest.approx(1)
    assert likeness(grey, 0.5 * grey + 90) > 0.99  # a flash
    assert likeness(grey, 255 - grey) < -0.9
    assert abs(likeness(grey, rng.integers(50, 200, (24, 32)))) < 0.15
    dark = np.full((24, 32), 3.0)
    assert likeness(dark, dark + 100) == 1
    assert likeness(dark + rng.normal(0, 1, dark.shape), dark + rng.normal(0, 1, dark.shape)) > 0.9


# --- Following ----------------------------------------------------------------------------------------------


def test_tracker_without_a_face(model: PatchModel, tracker: Tracker) -> None:
    results = follow(tracker, [picture()] * 10)
    assert [len(faces) for faces in results] == [0] * 10
    assert isinstance(results[0], TrackedFaces)
    assert model.detected == [0, 3, 6, 9]  # not at every frame


def test_a_face_keeps_its_number_and_the_detector_rests(model: PatchModel, tracker: Tracker) -> None:
    results = follow(tracker, [picture((50 + 2 * i, 80 + i, 1)) for i in range(31)])
    assert ids(results) == [[1]] * 31
    assert model.detected == [0, 10, 20, 30]
    assert (tracker.frames, tracker.detector_runs) == (31, 4)
    for i, faces in enumerate(results):
        box = [50 + 2 * i, 80 + i, 50 + 2 * i + 39, 80 + i + 39]
        np.testing.assert_allclose(faces.boxes[0], box, atol=0.01)
        np.testing.assert_allclose(geometry.tight_boxes(faces.keypoints)[0], box, atol=0.01)
        assert faces.scores.tolist() == pytest.approx([0.9])


def test_the_next_box_is_that_of_the_last_points(model: PatchModel, tracker: Tracker) -> None:
    follow(tracker, [picture((50, 80, 1)), picture((56, 80, 1)), picture((56, 80, 1))])
    assert [boxes[0].tolist() for boxes in model.boxes] == [[50, 80, 89, 119]] * 2 + [[56, 80, 95, 119]]


def test_a_crop_rests_while_the_face_does(model: PatchModel, tracker: Tracker) -> None:
    """0.1 of 39 pixels to the right and down leaves an overlap of 0.99; 0.2 one of less than 0.98."""
    place = model.keypoints_at

    def shifted(image: np.ndarray, boxes: np.ndarray) -> Faces:
        found = place(image, boxes)
        return Faces(found.boxes, found.scores, found.keypoints + 0.1 * model.frame, found.keypoint_scores)

    model.keypoints_at = shifted  # type: ignore[method-assign]
    follow(tracker, [picture((50, 80, 1))] * 4)
    assert [round(float(boxes[0, 0]), 1) for boxes in model.boxes] == [50, 50, 50, 50.2]


def test_new_faces_get_new_numbers(model: PatchModel, tracker: Tracker) -> None:
    one, two = [(50, 80, 1)], [(50, 80, 1), (200, 80, 2)]
    results = follow(tracker, [picture(*one)] * 5 + [picture(*two)] * 10)
    assert ids(results) == [[1]] * 10 + [[1, 2]] * 5  # seen at the next look, in frame 10
    assert results[-1].boxes[:, 0].tolist() == [50, 200]


def test_a_lost_face_that_comes_back_soon_keeps_its_number(tracker: Tracker) -> None:
    there, gone = picture((50, 80, 1)), picture()
    results = follow(tracker, [there] * 3 + [gone] * 5 + [there] * 3)
    assert ids(results) == [[1]] * 3 + [[]] * 5 + [[1]] * 3


def test_a_face_that_comes_back_late_or_elsewhere_is_a_new_one(tracker: Tracker) -> None:
    there, gone = picture((50, 80, 1)), picture()
    late = follow(tracker, [there] * 2 + [gone] * 30 + [there] * 4)
    assert late[-1].ids.tolist() == [2]
    elsewhere = follow(tracker, [gone] * 2 + [picture((200, 80, 1))] * 3, start=2.0)
    assert ids(elsewhere) == [[], [], [3], [3], [3]]  # a number is never given again


def test_a_jump_is_caught_by_the_detector(model: PatchModel, tracker: Tracker) -> None:
    """Half a face aside, the points in the old box are unsure, and the detector helps in the same frame."""
    results = follow(tracker, [picture((50, 80, 1))] * 3 + [picture((68, 80, 1))] * 3)
    assert ids(results) == [[1]] * 6
    assert model.detected == [0, 3]
    assert results[3].boxes[0].tolist() == [68, 80, 107, 119]
    assert results[3].keypoint_scores.mean() == pytest.approx(0.8)


def test_sure_points_do_not_need_the_detector(model: PatchModel, tracker: Tracker) -> None:
    follow(tracker, [picture((50, 80, 1))])
    model.blind = True
    assert ids(follow(tracker, [picture((50 + i, 80, 1)) for i in range(25)], start=1.0)) == [[1]] * 25


def test_box_without_sure_points_is_no_face(model: PatchModel, tracker: Tracker) -> None:
    """The detector's word alone is not enough."""
    place = model.keypoints_at

    def unsure(image: np.ndarray, boxes: np.ndarray) -> Faces:
        found = place(image, boxes)
        return Faces(found.boxes, found.scores, found.keypoints, np.full((len(found), 68), 0.1))

    model.keypoints_at = unsure  # type: ignore[method-assign]
    assert ids(follow(tracker, [picture((50, 80, 1))] * 7)) == [[]] * 7
    assert model.detected == [0, 3, 6]
    model.keypoints_at = place  # type: ignore[method-assign]
    assert ids(follow(tracker, [picture((50, 80, 1))] * 3, start=1.0))[-1] == [1]


def test_two_that_end_up_on_one_face(model: PatchModel, tracker: Tracker) -> None:
    """Two faces meet and become one patch; then only one of the numbers is left there, and it stays."""
    results = follow(tracker, [picture((50 + 4 * i, 80, 1), (150 - 4 * i, 80, 2)) for i in range(14)])
    apart, merged = ids(results)[:7], ids(results)[13]
    assert apart == [[1, 2]] * 7
    assert len(merged) == 1
    after = follow(tracker, [picture((100, 80, 1))] * 3, start=1.0)
    assert ids(after) == [merged] * 3


def test_two_that_meet_and_part(tracker: Tracker) -> None:
    """The one that is hidden for a moment is known again."""
    steps = [*range(12), 12, 12, *range(12, 0, -1)]
    results = follow(tracker, [picture((50 + 4 * i, 80, 1), (150 - 4 * i, 80, 2)) for i in steps])
    assert len(results[13]) == 1
    assert results[-1].ids.tolist() == [1, 2]
    assert results[-1].boxes[:, 0].tolist() == results[1].boxes[:, 0].tolist() == [54, 146]


def test_a_change_of_scene(model: PatchModel, tracker: Tracker) -> None:
    """Another person in the same place is somebody else; whom the same picture shows is the same."""
    before, after = picture((50, 80, 1), scene=1), picture((52, 82, 2), scene=2)
    results = follow(tracker, [before] * 3 + [after] * 3)
    assert ids(results) == [[1]] * 3 + [[2]] * 3
    assert model.detected == [0, 3]
    elsewhere = picture((54, 82, 2), scene=3)
    assert ids(follow(tracker, [elsewhere, before], start=0.3)) == [[2], [1]]
    assert model.detected == [0, 3, 6, 7]
    assert ids(follow(tracker, [after, picture(scene=3)] + [before] * 30 + [after], start=0.5))[-1] == [3]


def test_a_flash_is_no_change_of_scene(model: PatchModel, tracker: Tracker) -> None:
    image = picture((50, 80, 1))
    flash = (0.5 * image + 127).astype(np.uint8)
    model._patches = lambda _: [[50.0, 80.0, 89.0, 119.0]]  # type: ignore[method-assign]
    assert ids(follow(tracker, [image, flash, image])) == [[1]] * 3
    assert model.detected == [0]


def test_a_long_pause_and_another_size_are_a_new_scene(model: PatchModel, tracker: Tracker) -> None:
    results = follow(tracker, [picture((50, 80, 1))] * 2)
    results += follow(tracker, [picture((50, 80, 1))], start=9.0)
    assert ids(results) == [[1]] * 3 and model.detected == [0, 2]  # it looks the same, so it is the same
    results = follow(tracker, [picture((50, 80, 1), size_wh=(240, 320))], start=9.1)
    assert ids(results) == [[2]] and model.detected == [0, 2, 3]


@pytest.mark.parametrize("limits", [{"max_faces": -1}, {"max_faces": 1.5}, {"min_score": 2}])
def test_limits_that_are_none(model: PatchModel, limits: dict) -> None:
    """-1 followed nobody, silently."""
    with pytest.raises(ValueError, match=next(iter(limits))):
        Tracker(model, **limits)  # type: ignore[arg-type]


def test_max_faces_and_min_score(model: PatchModel) -> None:
    tracker = Tracker(model, max_faces=1, min_score=0.4, smoothing=False)  # type: ignore[arg-type]
    both = picture((50, 80, 1), (200, 80, 2))
    both[75:80, 200:240] = both[80:85, 200:240]  # the second is the larger one
    assert ids(follow(tracker, [both] * 3)) == [[1]] * 3
    assert model.min_score == 0.4
    results = follow(tracker, [picture((50, 80, 1), (201, 79, 2))] * 25, start=1.0)
    assert ids(results) == [[1]] * 25 and results[-1].boxes[0, 0] == 201  # who is there already comes first


@pytest.mark.parametrize("time", (0.0, -1.0, float("nan")))
def test_time_has_to_go_on(tracker: Tracker, time: float) -> None:
    tracker(picture(), 0.0)
    with pytest.raises(ValueError, match="comes after one at 0.0 s"):
        tracker(picture(), time)
    assert len(tracker(picture((50, 80, 1)), 5.0)) == 1  # and the tracker goes on


def test_smoothing_is_of_each_face(model: PatchModel) -> None:
    """A resting face is calmed, each by its own past; what is told about boxes goes with the points."""
    rng = np.random.default_rng(0)
    place = model.keypoints_at

    def trembling(image: np.ndarray, boxes: np.ndarray) -> Faces:
        found = place(image, boxes)
        noise = rng.normal(0, 0.2, found.keypoints.shape)
        return Faces(found.boxes, found.scores, found.keypoints + noise, found.keypoint_scores)

    model.keypoints_at = trembling  # type: ignore[method-assign]
    pictures = [picture((50, 80, 1), (200, 80, 2))] * 30
    motion = {}
    for smoothing in (False, True):
        results = follow(Tracker(model, smoothing=smoothing), pictures)  # type: ignore[arg-type]
        keypoints = np.stack([faces.keypoints for faces in results])
        assert ids(results) == [[1, 2]] * 30
        np.testing.assert_array_equal(results[-1].boxes, geometry.tight_boxes(keypoints[-1]))
        motion[smoothing] = np.linalg.norm(np.diff(keypoints[5:], axis=0), axis=-1).mean(axis=(0, 2))
    assert (motion[True] < motion[False] / 4).all()
    middles = UNIT.mean(axis=0)[0] * 39 + [50, 200]
    np.testing.assert_allclose(keypoints[-1].mean(axis=1)[:, 0], middles, atol=0.2)


def test_the_bundled_model_follows_a_face() -> None:
    """The whole of it on a real one, which moves by 1 % of its width a frame."""
    model = FaceKeypoints.from_pretrained()
    portrait = images.read(EXAMPLES / "eileen_collins.jpg")[:300, :400]
    tracker = Tracker(model, max_faces=1)
    for frame in range(12):
        shift = np.array([[1.0, 0.0, 1.0 * frame], [0.0, 1.0, 0.0]])
        image = cv2.warpAffine(portrait, shift, (400, 300), borderMode=cv2.BORDER_REPLICATE)
        faces = tracker(image, frame / RATE)
        assert faces.ids.tolist() == [1]
        alone = model(image, max_faces=1)
        apart = np.linalg.norm(faces.keypoints - alone.keypoints, axis=-1).mean()
        assert apart < 0.02 * geometry.inter_ocular(alone.keypoints)[0]
    assert tracker.detector_runs == 2
    assert tracking.DETECT_EVERY == 10
