"""What follows from 68 keypoints: head pose, how far eyes and mouth are open, aligned faces (NumPy)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fkp import scheme
from fkp.geometry import CropTransform

# fmt: off
_RIGHT_HALF = {
    17: (-60.4, -10.2, 26.6, 4.0), 18: (-51.4, -17.8, 19.6, 3.0), 19: (-39.5, -20.6, 12.3, 2.8),
    20: (-26.7, -19.4, 6.2, 2.9), 21: (-14.5, -14.9, 2.6, 3.5), 27: (0.0, 1.8, 1.8, 2.4),
    28: (0.0, 13.3, -4.9, 2.1), 29: (0.0, 24.5, -12.4, 2.4), 30: (0.0, 35.9, -19.5, 3.2),
    31: (-15.5, 48.0, 1.3, 2.5), 32: (-8.1, 49.5, -2.3, 2.1), 33: (0.0, 50.7, -4.8, 2.1),
    36: (-47.2, 4.1, 22.3, 2.5), 37: (-38.5, -0.7, 17.7, 2.4), 38: (-27.2, -0.8, 14.7, 2.4),
    39: (-18.4, 5.7, 14.8, 2.1), 40: (-28.4, 7.4, 15.6, 2.2), 41: (-38.8, 7.2, 18.3, 2.2),
    48: (-28.7, 72.0, 13.9, 3.5), 49: (-18.6, 66.7, 4.0, 2.6), 50: (-7.0, 63.1, -3.7, 2.4),
    51: (0.0, 64.6, -4.6, 2.3), 57: (0.0, 84.7, -0.4, 3.1), 58: (-11.0, 83.3, 3.2, 3.1),
    59: (-20.6, 78.9, 8.6, 2.9), 60: (-26.2, 72.2, 13.4, 3.5), 61: (-7.3, 69.7, -0.7, 2.3),
    62: (0.0, 70.2, -1.8, 2.2), 66: (0.0, 75.6, 0.5, 2.7), 67: (-7.7, 75.0, 1.6, 2.8),
}
# fmt: on
"""The mean head: x, y, z and the spread of each point between people, in mm; the subject's right half and the
middle line of the 51 inner points. x points to the head's left, y down, z away from the viewer; 0 is near the
root of the nose.

Own derivation: the rigid, symmetric shape that explains the labels of 12270 training faces (LFPW, HELEN, AFW,
and the visible points of AFLW as MERL-RAV marks them) with the least squares under weak perspective, each
face with a rotation, scale and shift of its own (structure from motion, as Tomasi and Kanade, 1992, with
missing points, solved by alternation). What such a fit leaves open, the head's size and which way is level,
follows averages of anthropometry: outer eye corners 90 to 95 mm apart, and a pitch of 0 for a face that looks
straight at the camera in LFPW. The program: `git show f2d03e4:benchmarks/head_pose.py`. The jaw has no part
in it: where it is marked on a turned face depends on the labelling.
"""


def _symmetric_head() -> tuple[np.ndarray, np.ndarray]:
    points, spreads = np.zeros((scheme.COUNT, 3)), np.zeros(scheme.COUNT)
    for point, (x, y, z, spread) in _RIGHT_HALF.items():
        for at, side in ((point, 1), (scheme.FLIP[point], -1)):
            points[at], spreads[at] = (side * x, y, z), spread
    return points[list(scheme.INNER)], spreads[list(scheme.INNER)]


HEAD, SPREAD = _symmetric_head()
"""The mean head (51,3) and the spread (51,) of its points, mm: what `_RIGHT_HALF` says, for
`scheme.INNER`."""

LEAST_POINTS = 8
"""Of the 51, from which a pose is told."""

RIGHT_EYE = ((36, 39), (37, 41), (38, 40))
LEFT_EYE = ((42, 45), (43, 47), (44, 46))
MOUTH = ((60, 64), (61, 67), (62, 66), (63, 65))
"""The corners of a part, then pairs of an upper and a lower point."""

PLACES = (range(36, 42), range(42, 48), (30,), (48,), (54,))
"""Right and left eye, tip of the nose, corners of the mouth: each is the mean of these keypoints."""

ALIGNED = np.array([[0.34, 0.46], [0.66, 0.46], [0.5, 0.64], [0.37, 0.82], [0.63, 0.82]])
"""Where `PLACES` come to lie in an aligned face, as shares of its side: about as ArcFace has them (Deng et
al., 2019), symmetric and rounded."""


@dataclass(frozen=True, eq=False)
class Pose:
    """Where n heads are turned: `yaw`, `pitch`, `roll` (n,) in degrees, and `sigmas` (n,3), one standard
    deviation of each.

    Yaw is positive for a head turned to its own left (the viewer's right), pitch for one that looks up, roll
    for one tilted clockwise as the viewer sees it; all are 0 for a face that looks straight at the camera.
    """

    yaw: np.ndarray
    pitch: np.ndarray
    roll: np.ndarray
    sigmas: np.ndarray


def pose(keypoints: np.ndarray, sigmas: np.ndarray | None = None) -> Pose:
    """Where heads with keypoints (n,68,2) are turned, y pointing down; `sigmas` (n,68) are the points'
    expected errors in the same unit, NaN or None where they are not known.

    The mean head `HEAD` is turned, scaled and shifted under weak perspective until it fits the 51 inner
    points best (Gauss-Newton from the affine fit); a point counts the less, the larger its expected error and
    the more people differ there. Two things are not in the uncertainty: that a person's whole head differs
    from the mean one, which turns mostly the pitch, by some 5 degrees, and perspective, where a face is close
    to the camera. Points that are NaN do not count; fewer than `LEAST_POINTS`, and keypoints that are no
    face, all in one place or on a line, give NaN.
    """
    points = np.asarray(keypoints, np.float64)[:, list(scheme.INNER)]
    n, coordinates = len(points), 2 * points.shape[1]
    errors = np.zeros(points.shape[:2]) if sigmas is None else np.nan_to_num(sigmas)[:, list(scheme.INNER)]
    known = np.isfinite(points).all(axis=2)
    too_few = known.sum(axis=1) < LEAST_POINTS
    known |= too_few[:, None]
    points = np.where(known[..., None] & ~too_few[:, None, None], points, 0)
    counts = known.sum(axis=1)[:, None, None]
    around = np.where(known[..., None], points - points.sum(axis=1, keepdims=True) / counts, 0)
    size = np.sqrt((around**2).sum(axis=(1, 2)) / (2 * counts[:, 0, 0]))
    scale = (size / np.sqrt(HEAD[:, :2].var(axis=0).mean())).clip(1e-9)
    for _ in range(2):  # the first only tells the scale well, in pixels a mm, for what people differ by
        weights = known / (errors**2 + (scale[:, None] * SPREAD) ** 2)
        shares = weights / weights.sum(axis=1, keepdims=True)
        model = HEAD - (shares @ HEAD)[:, None]  # (n,51,3), each around its own weighted middle
        seen = points - (shares[..., None] * points).sum(axis=1, keepdims=True)
        normal = np.einsum("np,npi,npj->nij", shares, model, model)
        affine = np.linalg.solve(normal, np.einsum("np,npi,npj->nij", shares, model, seen)).transpose(0, 2, 1)
        left, stretch, right = np.linalg.svd(affine, full_matrices=False)
        scale = stretch[:, 0].clip(1e-9)  # the lesser ones are where the fit is poor
    flat = stretch[:, 1] < 1e-3 * stretch[:, 0].clip(1e-9)
    rows = left @ right
    rotation = np.concatenate([rows, np.cross(rows[:, 0], rows[:, 1])[:, None]], axis=1)
    for _ in range(8):
        turned = model @ rotation.transpose(0, 2, 1)
        jacobian = _jacobian(turned, scale)  # (n,51,2,4)
        residual = seen - scale[:, None, None] * turned[..., :2]
        weighted = (weights[..., None, None] * jacobian).reshape(n, coordinates, 4).transpose(0, 2, 1)
        hessian = weighted @ jacobian.reshape(n, coordinates, 4)
        hessian += 1e-9 * np.trace(hessian, axis1=1, axis2=2)[:, None, None] * np.eye(4)
        step = np.linalg.solve(hessian, weighted @ residual.reshape(n, coordinates, 1))
        rotation = _rotations(step[:, :3, 0].clip(-0.5, 0.5)) @ rotation
        scale = scale * np.exp(step[:, 3, 0].clip(-0.5, 0.5))
        if np.abs(step).max(initial=0) < 1e-5:  # radians, and shares of the scale: usually the fourth
            break
    covariance = np.linalg.inv(hessian)[:, :3, :3]
    to_angles = _angles_by_turn(rotation)
    variances = np.einsum("nij,njk,nik->ni", to_angles, covariance, to_angles)
    angles = _angles(rotation)
    angles[flat], variances[flat] = np.nan, np.nan
    yaw, pitch, roll = angles.T.astype(np.float32)
    return Pose(yaw, pitch, roll, np.sqrt(variances.clip(0)).astype(np.float32))


def _jacobian(turned: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """How projected points (n,p,2) change with a small turn about x, y, z and with the log of the scale."""
    x, y, z = np.moveaxis(turned, -1, 0)
    zero = np.zeros_like(x)
    along_x, along_y = np.stack([zero, z, -y, x], axis=-1), np.stack([-z, zero, x, y], axis=-1)
    return scale[:, None, None, None] * np.stack([along_x, along_y], axis=2)


def _rotations(vectors: np.ndarray) -> np.ndarray:
    """Rotation matrices (n,3,3) of rotation vectors (n,3), by Rodrigues' formula."""
    angle = np.linalg.norm(vectors, axis=1)[:, None, None]
    x, y, z = (vectors / angle[:, 0].clip(1e-12)).T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def _angles(rotation: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll (n,3), degrees, of rotation matrices (n,3,3): tilted first, then raised, then
    turned."""
    forward = -rotation[:, :, 2]  # where the nose points; the viewer is at −z
    yaw, pitch = np.arctan2(forward[:, 0], -forward[:, 2]), np.arcsin(np.clip(-forward[:, 1], -1, 1))
    return np.degrees(np.stack([yaw, pitch, np.arctan2(rotation[:, 1, 0], rotation[:, 1, 1])], axis=1))


def _angles_by_turn(rotation: np.ndarray, step: float = 1e-4) -> np.ndarray:
    """How the angles (n,3), degrees, change with a small turn about x, y, z: (n,3,3), by central
    differences."""
    columns = []
    for axis in np.eye(3):
        turn = _rotations(step * axis[None])[0]
        change = _angles(turn @ rotation) - _angles(turn.T @ rotation)
        columns.append(((change + 180) % 360 - 180) / (2 * step))
    return np.stack(columns, axis=2)


def eye_openness(keypoints: np.ndarray) -> np.ndarray:
    """How far eyes are open: (n,2), the right eye's and the left eye's height as a share of its width.

    The eye aspect ratio of Soukupová and Čech (Real-Time Eye Blink Detection using Facial Landmarks, 2016):
    about 0.1 for a shut eye, 0.25 to 0.4 for an open one. An eye that is seen from the side looks wider open.
    """
    return np.stack([_openness(keypoints, RIGHT_EYE), _openness(keypoints, LEFT_EYE)], axis=1)


def mouth_openness(keypoints: np.ndarray) -> np.ndarray:
    """How far mouths are open: (n,), the height between the inner lips as a share of their width, as
    `eye_openness` has it; 0 is closed."""
    return _openness(keypoints, MOUTH)


def _openness(keypoints: np.ndarray, part: tuple[tuple[int, int], ...]) -> np.ndarray:
    width, *heights = (np.linalg.norm(keypoints[:, a] - keypoints[:, b], axis=-1) for a, b in part)
    return (np.mean(heights, axis=0) / np.maximum(width, 1e-6)).astype(np.float32)


def aligned(image: np.ndarray, keypoints: np.ndarray, size: int = 112) -> np.ndarray:
    """Faces cut out of an image (H,W,3) uint8 RGB upright and of one size: (n,size,size,3), for another
    model.

    Each is turned, scaled and shifted, no more, so that its `PLACES` come to lie as near to `ALIGNED` as can
    be; what is beyond the image is as `CropTransform.crop` has it. Raises ValueError for a size that is no
    whole number from 1, and for keypoints that are not known or all in one place.
    """
    if not isinstance(size, int | np.integer) or size < 1:
        raise ValueError(f"size is {size}, where pixels of a side, from 1, are needed")
    crops = [CropTransform(_alignment(face, size), (size, size)).crop(image) for face in keypoints]
    return np.stack(crops) if crops else np.empty((0, size, size, 3), np.uint8)


def _alignment(keypoints: np.ndarray, size: int) -> np.ndarray:
    """The 2×3 similarity that takes a face's places nearest to where they are wanted in a crop.

    With points as complex numbers it is z → a·z + b, and a follows as in any linear regression.
    """
    places = np.array([keypoints[list(points)].mean(axis=0) for points in PLACES], np.float64)
    z, w = places @ [1, 1j], (ALIGNED * size - 0.5) @ [1, 1j]  # integers are pixel centres
    centred = z - z.mean()
    spread = (centred.conj() @ centred).real
    if not spread > 1e-12:  # NaN is not
        raise ValueError("a face cannot be aligned whose eyes, nose and mouth are not known or in one place")
    a = (centred.conj() @ (w - w.mean())) / spread
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
