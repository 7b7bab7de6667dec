"""Work on a lent GPU: that it goes to another process and back, or stays here; there is none in the tests."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from fkp import FaceKeypoints
from fkp.demo import zerogpu


@dataclass(frozen=True)
class Model:
    """A stand-in for a model: it says where it is."""

    device: str = "cpu"

    def to(self, device: str) -> Model:
        return replace(self, device=device)


HERE, MOVED = Model(), Model("auto")


def counting(model, upto: int, *more):
    """Yields who works, then numbers, and fails for what is below zero."""
    yield multiprocessing.current_process().name, model
    if upto < 0:
        raise ValueError(f"{upto} is below zero")
    yield from range(upto)


class LentByFork(ModuleType):
    """A stand-in for the package `spaces` on ZeroGPU: a forked process does the work, values are pickled.

    `asked` are the seconds that were asked for, `refuses` says that there is no GPU to be had. Where a worker
    fails, its error's class is all that comes back, as from the real one.
    """

    def __init__(self) -> None:
        super().__init__("spaces")
        self.asked: list[float] = []
        self.refuses = False

    def GPU(self, work, duration):
        def lend(*given):
            self.asked.append(duration(*given))
            if self.refuses:
                raise RuntimeError("You have exceeded your GPU quota")
            context = multiprocessing.get_context("fork")
            ours, theirs = context.Pipe()

            def there():
                try:
                    for value in work(*given):
                        theirs.send(("value", value))
                    theirs.send(("end", None))
                except Exception as error:
                    theirs.send(("error", type(error).__name__))

            process = context.Process(target=there, name="lent", daemon=True)
            process.start()
            theirs.close()  # so that a process that dies ends the waiting
            try:
                while (message := ours.recv())[0] == "value":
                    yield message[1]
                if message[0] == "error":
                    raise RuntimeError(message[1])
            finally:
                process.terminate()
                process.join()

        return lend


@pytest.fixture
def zero(monkeypatch: pytest.MonkeyPatch) -> Iterator[LentByFork]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    cv2.resize(np.zeros((3000, 3000, 3), np.uint8), (1500, 1500))  # OpenCV's threads are there
    stand_in = LentByFork()
    monkeypatch.setitem(sys.modules, "spaces", stand_in)
    yield stand_in
    cv2.setNumThreads(before)


def test_work_stays_here_without_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spaces", None)  # as if it were not installed
    work = zerogpu.lent(counting, HERE, seconds=lambda upto: 1)
    assert list(work(2)) == [(multiprocessing.current_process().name, HERE), 0, 1]
    with pytest.raises(ValueError, match="-1 is below zero"):
        list(work(-1))


def test_work_stays_here_away_from_zero_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = ModuleType("spaces")
    stand_in.GPU = lambda work, duration: work  # what the real one does away from ZeroGPU
    monkeypatch.setitem(sys.modules, "spaces", stand_in)
    work = zerogpu.lent(counting, HERE, seconds=lambda upto: 1)
    assert list(work(1)) == [(multiprocessing.current_process().name, MOVED), 0]


def test_work_on_zero_gpu_is_done_in_another_process(zero: LentByFork) -> None:
    work = zerogpu.lent(counting, HERE, seconds=lambda upto: 10 * upto)
    assert list(work(2)) == [("lent", MOVED), 0, 1]
    assert zero.asked == [20]


def test_errors_raised_there_are_raised_here(zero: LentByFork) -> None:
    work = zerogpu.lent(counting, HERE, seconds=lambda upto: 1)
    with pytest.raises(ValueError, match="-1 is below zero"):
        list(work(-1))


def test_work_runs_without_a_gpu_that_cannot_be_had(zero: LentByFork) -> None:
    zero.refuses = True
    work = zerogpu.lent(counting, HERE, seconds=lambda upto: 1)
    assert list(work(1)) == [(multiprocessing.current_process().name, HERE), 0]


def test_work_closed_early_ends_the_other_process(zero: LentByFork) -> None:
    work = zerogpu.lent(counting, HERE, seconds=lambda upto: 1)(10**6)
    assert next(work) == ("lent", MOVED) and multiprocessing.active_children()
    work.close()
    assert not [child for child in multiprocessing.active_children() if child.name == "lent"]


def faces_in(model: FaceKeypoints, image: np.ndarray):
    yield model(image).keypoints


def test_the_model_works_in_a_process_that_was_forked(zero: LentByFork, root) -> None:
    """Although threads of torch and OpenCV, which it used before, do not come along."""
    image = np.asarray(Image.open(root / "examples" / "four_faces.jpg"))
    model = FaceKeypoints.from_pretrained(backend="torch")
    here = model(image).keypoints
    (there,) = zerogpu.lent(faces_in, model, seconds=lambda image: 1)(image)
    assert there == pytest.approx(here, abs=0.05)


def test_a_copy_goes_to_the_gpu_where_there_is_one() -> None:
    model = FaceKeypoints.from_pretrained()
    moved = zerogpu.on_gpu(model)
    assert moved is zerogpu.on_gpu(model), "made once"
    if not torch.cuda.is_available():
        assert moved is model
        return
    assert (model.backend, moved.backend) == ("onnxruntime", "torch")
    image, boxes = np.zeros((64, 64, 3), np.uint8), np.array([[10, 10, 50, 50]])
    expected = model.keypoints_at(image, boxes).keypoints
    assert moved.keypoints_at(image, boxes).keypoints == pytest.approx(expected, abs=0.5)
