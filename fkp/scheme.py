"""The 68 keypoints of the iBUG / 300-W (Multi-PIE) mark-up, 0-based.

Left and right are the subject's: points 36..41 are the right eye, which a viewer sees on the left.
Source: https://ibug.doc.ic.ac.uk/resources/300-W/ (whose figure counts from 1).
"""

NAME = "ibug-68"
COUNT = 68

GROUPS: dict[str, tuple[int, ...]] = {
    "jaw": tuple(range(0, 17)),
    "right_eyebrow": tuple(range(17, 22)),
    "left_eyebrow": tuple(range(22, 27)),
    "nose_bridge": tuple(range(27, 31)),
    "nose_tip": tuple(range(31, 36)),
    "right_eye": tuple(range(36, 42)),
    "left_eye": tuple(range(42, 48)),
    "outer_lips": tuple(range(48, 60)),
    "inner_lips": tuple(range(60, 68)),
}
"""Points by part of the face, each in drawing order."""

CLOSED = frozenset({"right_eye", "left_eye", "outer_lips", "inner_lips"})
"""Groups whose last point joins their first."""

RIGHT_EYE_OUTER_CORNER = 36
LEFT_EYE_OUTER_CORNER = 45

INNER = tuple(range(17, 68))
"""The 51 points that are not on the jaw line."""

# fmt: off
FLIP: tuple[int, ...] = (
    16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0,  # jaw
    26, 25, 24, 23, 22, 21, 20, 19, 18, 17,                    # eyebrows
    27, 28, 29, 30, 35, 34, 33, 32, 31,                        # nose
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,            # eyes
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55,            # outer lips
    64, 63, 62, 61, 60, 67, 66, 65,                            # inner lips
)
# fmt: on
"""`mirrored[i] = keypoints[FLIP[i]]`: the point that stands for point i once the picture is mirrored."""

EDGES: tuple[tuple[int, int], ...] = tuple(
    (a, b)
    for name, points in GROUPS.items()
    for a, b in zip(points, points[1:] + (points[:1] if name in CLOSED else ()), strict=False)
)
"""Neighbours along each group's contour."""


LABEL_STYLES = ("auto", "300w", "ytf")
"""How the jaw of a turned face is marked: `300w` follows the visible outline, `ytf` the hidden side of the
head; `auto` leaves it to what the picture looks like."""


def group_of(point: int) -> str:
    """Name of the group that keypoint `point` (0..67) belongs to."""
    return next(name for name, points in GROUPS.items() if point in points)
