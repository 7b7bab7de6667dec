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

# fmt: off
TRIANGLES: tuple[tuple[int, int, int], ...] = (
    (0, 1, 36), (0, 17, 36), (1, 2, 41), (1, 36, 41), (2, 3, 31), (2, 31, 41), (3, 4, 48), (3, 31, 48),
    (4, 5, 48), (5, 6, 59), (5, 48, 59), (6, 7, 58), (6, 58, 59), (7, 8, 58), (8, 9, 56), (8, 56, 57),
    (8, 57, 58), (9, 10, 56), (10, 11, 55), (10, 55, 56), (11, 12, 54), (11, 54, 55), (12, 13, 54),
    (13, 14, 35), (13, 35, 54), (14, 15, 46), (14, 35, 46), (15, 16, 45), (15, 45, 46), (16, 26, 45),
    (17, 18, 36), (18, 19, 37), (18, 36, 37), (19, 20, 37), (20, 21, 38), (20, 37, 38), (21, 22, 27),
    (21, 27, 39), (21, 38, 39), (22, 23, 43), (22, 27, 42), (22, 42, 43), (23, 24, 44), (23, 43, 44),
    (24, 25, 44), (25, 26, 45), (25, 44, 45), (27, 28, 39), (27, 28, 42), (28, 29, 39), (28, 29, 42),
    (29, 30, 31), (29, 30, 35), (29, 31, 40), (29, 35, 47), (29, 39, 40), (29, 42, 47), (30, 31, 32),
    (30, 32, 33), (30, 33, 34), (30, 34, 35), (31, 32, 50), (31, 40, 41), (31, 48, 49), (31, 49, 50),
    (32, 33, 50), (33, 34, 52), (33, 50, 51), (33, 51, 52), (34, 35, 52), (35, 46, 47), (35, 52, 53),
    (35, 53, 54), (36, 37, 41), (37, 38, 40), (37, 40, 41), (38, 39, 40), (42, 43, 47), (43, 44, 47),
    (44, 45, 46), (44, 46, 47), (48, 49, 60), (48, 59, 60), (49, 50, 61), (49, 60, 61), (50, 51, 61),
    (51, 52, 63), (51, 61, 62), (51, 62, 63), (52, 53, 63), (53, 54, 64), (53, 63, 64), (54, 55, 64),
    (55, 56, 65), (55, 64, 65), (56, 57, 66), (56, 65, 66), (57, 58, 66), (58, 59, 67), (58, 66, 67),
    (59, 60, 67), (60, 61, 67), (61, 62, 67), (62, 63, 65), (62, 65, 66), (62, 66, 67), (63, 64, 65),
)
# fmt: on
"""Every point joined with its neighbours: the Delaunay triangles of the mean face of 300-W (1674 training
faces of LFPW and HELEN, and their mirror images), changed at the corners of the mouth so that every one of
`EDGES` is a side."""

MESH: tuple[tuple[int, int], ...] = tuple(
    sorted({pair for a, b, c in TRIANGLES for pair in ((a, b), (a, c), (b, c))})
)
"""The sides of `TRIANGLES`, each once, its lower point first."""

# fmt: off
MEAN_FACE: tuple[tuple[int, int], ...] = (
    (-819, 21), (-812, 236), (-787, 450), (-742, 660), (-658, 855), (-529, 1025), (-372, 1168), (-198, 1284),
    (0, 1316), (198, 1284), (372, 1168), (529, 1025), (658, 855), (742, 660), (787, 450), (812, 236),
    (819, 21),
    (-666, -154), (-563, -242), (-422, -267), (-277, -247), (-137, -194),
    (137, -194), (277, -247), (422, -267), (563, -242), (666, -154),
    (0, -19), (0, 124), (0, 265), (0, 409), (-163, 503), (-84, 531), (0, 558), (84, 531), (163, 503),
    (-500, 0), (-414, -53), (-306, -51), (-218, 19), (-315, 41), (-421, 40),
    (218, 19), (306, -51), (414, -53), (500, 0), (421, 40), (315, 41),
    (-314, 770), (-200, 721), (-81, 696), (0, 716), (81, 696), (200, 721),
    (314, 770), (204, 882), (89, 931), (0, 940), (-89, 931), (-204, 882),
    (-267, 777), (-83, 767), (0, 776), (83, 767), (267, 777), (84, 823), (0, 833), (-84, 823),
)
# fmt: on
"""The 68 points of the mean face of 300-W, xy: that of `TRIANGLES`. The outer eye corners are 1000
apart, their middle is 0."""

LABEL_STYLES = ("300w", "ytf", "merl")
"""Labelling conventions of data sets that can be asked for: for the jaw of a turned face, `300w` follows the
visible outline, `ytf` the hidden side of the head, `merl` (MERL-RAV) the jaw bone's line; each has the
annotation offset of its labels. The default, None, is none of them: points where they are seen."""


def style_index(label_style: str | None) -> int:
    """The number of a labelling style as the networks count them: 0 is None, then `LABEL_STYLES`.

    Raises ValueError for a style that does not exist.
    """
    if label_style is None:
        return 0
    if label_style not in LABEL_STYLES:
        raise ValueError(f"label_style {label_style!r} is none of {', '.join(LABEL_STYLES)}")
    return 1 + LABEL_STYLES.index(label_style)


def group_of(point: int) -> str:
    """Name of the group that keypoint `point` (0..67) belongs to."""
    return next(name for name, points in GROUPS.items() if point in points)
