"""Points that tremble from frame to frame made calm, without holding back those that move."""

from __future__ import annotations

import numpy as np


class OneEuro:
    """The One-Euro filter of points (...,d): calms what rests, follows what moves.

    A low-pass filter whose cut-off, `least_cutoff` + `gain` × speed, in Hz, grows with the speed of each
    point, which is itself filtered at `speed_cutoff` Hz (Casiez, Roussel and Vogel, CHI 2012).
    """

    def __init__(self, least_cutoff: float, gain: float, *, speed_cutoff: float = 1.0) -> None:
        self.least_cutoff, self.gain, self.speed_cutoff = least_cutoff, gain, speed_cutoff
        self._points: np.ndarray | None = None
        self._velocities = np.zeros(0)
        self._time = 0.0

    def __call__(self, points: np.ndarray, time: float, unit: float = 1.0) -> np.ndarray:
        """The points filtered; `time` is in seconds, speeds are in `unit`s of length a second.

        The first points come back as they are. Raises ValueError where time does not go on.
        """
        points = np.array(points, np.float64)
        if self._points is None:
            self._points, self._velocities = points, np.zeros_like(points)
        else:
            passed = time - self._time
            if not passed > 0:
                raise ValueError(f"points at {time} s come after those at {self._time} s")
            change = points - self._points
            jolt = change / passed - self._velocities
            self._velocities = self._velocities + _weight(self.speed_cutoff, passed) * jolt
            speeds = np.linalg.norm(self._velocities, axis=-1, keepdims=True) / unit
            self._points = self._points + _weight(self.least_cutoff + self.gain * speeds, passed) * change
        self._time = time
        return self._points.copy()


def _weight(cutoff: float | np.ndarray, passed: float) -> np.ndarray:
    """Share of a change that a low-pass filter lets through within so many seconds."""
    turns = 2 * np.pi * passed * np.asarray(cutoff)
    return turns / (turns + 1)


class Smoother:
    """Calms the keypoints of one face.

    The place of a face, its turn and size, and its form are filtered apart. The first two are those of all 68
    points together, so they tremble little and can be followed at once: a face that moves leaves no trail
    behind. LOG.md has what one filter for each point did; benchmarks/jitter.py measures.
    """

    def __init__(self) -> None:
        self._place, self._turn, self._form = OneEuro(1.0, 200.0), OneEuro(1.0, 200.0), OneEuro(0.5, 30.0)
        self._first: np.ndarray | None = None
        self._size = 1.0

    def __call__(self, keypoints: np.ndarray, time: float) -> np.ndarray:
        """Keypoints (68,2) at a time in seconds, calmed; same type. Raises ValueError as `OneEuro` does."""
        points = np.asarray(keypoints, np.float64) @ (1, 1j)  # complex: turning is multiplying
        middle = points.mean()
        about = points - middle
        if self._first is None:
            self._first = about
            self._size = float(max(np.ptp(about.real), np.ptp(about.imag))) or 1.0
        # What turns and scales the first frame's points to these, by least squares.
        turn = np.vdot(self._first, about) / (np.vdot(self._first, self._first).real or 1.0) or 1.0
        # Speeds are in faces a second, so that a near face is treated like a far one.
        middle = _filtered(self._place, middle, time, self._size * abs(turn))
        form = _filtered(self._form, about / turn, time, self._size)
        calm = middle + _filtered(self._turn, turn, time, 1.0) * form
        return _pairs(calm).astype(np.asarray(keypoints).dtype)


def _filtered(one_euro: OneEuro, points: np.ndarray | complex, time: float, unit: float) -> np.ndarray:
    return one_euro(_pairs(points), time, unit) @ (1, 1j)


def _pairs(points: np.ndarray | complex) -> np.ndarray:
    """Complex numbers (...) as points (...,2)."""
    return np.stack([np.real(points), np.imag(points)], axis=-1)
