"""Calls from several threads that share the runs of a network."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fkp import FaceKeypoints
from fkp.demo import batching
from fkp.demo.batching import LARGEST, Shared


class Slow:
    """A runner that notes the sizes of its batches, and whose first run lasts until it is let go."""

    name, description = "slow", "slow, until it is let go"

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.running, self.let_go = threading.Event(), threading.Event()

    def __call__(self, pictures: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray, ...]:
        self.sizes.append(len(pictures))
        self.running.set()
        assert self.let_go.wait(10)
        if (pictures == 255).any():
            raise RuntimeError("a white picture")
        means = pictures.reshape(len(pictures), -1).mean(axis=1)
        return means, means[:, None] + (more[0] if more else 0)


def pictures(n: int, value: int, size: int = 4) -> np.ndarray:
    return np.full((n, size, size, 3), value, np.uint8)


def together(shared: Shared, slow: Slow, calls: list[tuple]) -> list:
    """The results, or errors, of calls that all come while a first one of one picture runs."""

    def call(arguments):
        try:
            return shared(*arguments)
        except RuntimeError as error:
            return error

    with ThreadPoolExecutor(len(calls) + 1) as pool:
        first = pool.submit(shared, pictures(1, 0))
        assert slow.running.wait(10)
        others = [pool.submit(call, arguments) for arguments in calls]
        while len(shared._waiting) < len(calls):
            threading.Event().wait(0.001)
        slow.let_go.set()
        first.result(10)
        return [other.result(10) for other in others]


@pytest.fixture
def slow() -> Slow:
    return Slow()


def test_call_that_is_alone_runs_at_once(slow):
    slow.let_go.set()
    means, sums = Shared(slow)(pictures(2, 7), np.array([1]))
    assert means.tolist() == [7, 7] and sums.tolist() == [[8], [8]] and slow.sizes == [2]
    assert (Shared(slow).name, Shared(slow).description) == (slow.name, slow.description)


def test_calls_that_wait_are_run_together_and_each_gets_its_own(slow):
    results = together(Shared(slow), slow, [(pictures(n, 10 * n),) for n in (1, 2, 3)])
    assert slow.sizes == [1, 6]
    for n, (means, sums) in zip((1, 2, 3), results, strict=True):
        assert means.tolist() == [10 * n] * n and sums.shape == (n, 1)


def test_calls_of_other_sizes_and_inputs_run_by_themselves(slow):
    calls = [
        (pictures(1, 1), np.array([1])),
        (pictures(1, 2), np.array([2])),
        (pictures(1, 3, size=5), np.array([1])),
        (pictures(1, 4), np.array([1])),
    ]
    results = together(Shared(slow), slow, calls)
    assert sorted(slow.sizes) == [1, 1, 1, 2]
    assert [means.tolist() for means, _ in results] == [[1], [2], [3], [4]]
    assert [sums.tolist() for _, sums in results] == [[[2]], [[4]], [[4]], [[5]]]


def test_runs_are_no_larger_than_the_limit(slow):
    results = together(Shared(slow), slow, [(pictures(30, value),) for value in (1, 2, 3, 4)])
    assert max(slow.sizes) <= LARGEST and sum(slow.sizes) == 121
    assert [len(means) for means, _ in results] == [30] * 4


def test_an_error_reaches_all_that_ran_together_and_the_next_call_works(slow):
    shared = Shared(slow)
    results = together(shared, slow, [(pictures(1, 5),), (pictures(1, 255),)])
    assert [str(result) for result in results] == ["a white picture"] * 2
    assert shared(pictures(1, 5))[0].tolist() == [5]


def test_threads_get_what_they_would_get_alone(root):
    """The bundled network gives the same for a face alone and among others, to a thousandth of a pixel."""
    model, alone = FaceKeypoints.from_pretrained(), FaceKeypoints.from_pretrained()
    model.runner = batching.Shared(model.runner)
    image = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    boxes = np.array([[10 * i, 5 * i, 10 * i + 60, 5 * i + 70] for i in range(12)], np.float32)
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda box: model.keypoints_at(image, box).keypoints[0], boxes))
    expected = [alone.keypoints_at(image, box).keypoints[0] for box in boxes]
    np.testing.assert_allclose(found, expected, atol=1e-3)
