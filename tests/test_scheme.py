"""The mark-up's tables against each other and against a face drawn by hand."""

import numpy as np

from fkp import scheme


def test_groups_hold_every_point_once() -> None:
    assert sorted(point for points in scheme.GROUPS.values() for point in points) == list(range(scheme.COUNT))
    assert scheme.COUNT == 68 and scheme.NAME == "ibug-68"
    assert scheme.CLOSED <= scheme.GROUPS.keys()
    sizes = [17, 5, 5, 4, 5, 6, 6, 12, 8]
    assert [len(points) for points in scheme.GROUPS.values()] == sizes


def test_flip_is_its_own_inverse() -> None:
    assert sorted(scheme.FLIP) == list(range(68))
    assert [scheme.FLIP[scheme.FLIP[i]] for i in range(68)] == list(range(68))


def test_flip_maps_right_to_left() -> None:
    for name, points in scheme.GROUPS.items():
        if "right" in name:
            other = name.replace("right", "left")
        elif "left" in name:
            other = name.replace("left", "right")
        else:
            other = name
        assert {scheme.FLIP[point] for point in points} == set(scheme.GROUPS[other]), name


def test_flip_on_a_symmetric_face() -> None:
    """By what the figure of the mark-up shows: pairs at the same height, the middle on itself."""
    pairs = [(0, 16), (4, 12), (17, 26), (21, 22), (31, 35), (36, 45), (39, 42), (37, 44), (41, 46)]
    pairs += [(48, 54), (50, 52), (59, 55), (60, 64), (61, 63), (67, 65)]
    for right, left in pairs:
        assert scheme.FLIP[right] == left and scheme.FLIP[left] == right
    middle = [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]
    assert [point for point in range(68) if scheme.FLIP[point] == point] == middle


def test_edges() -> None:
    closed = sum(len(scheme.GROUPS[name]) for name in scheme.CLOSED)
    open_groups = [points for name, points in scheme.GROUPS.items() if name not in scheme.CLOSED]
    assert len(scheme.EDGES) == closed + sum(len(points) - 1 for points in open_groups) == 63
    assert all(scheme.group_of(a) == scheme.group_of(b) for a, b in scheme.EDGES)
    assert {(0, 1), (15, 16), (41, 36), (47, 42), (59, 48), (67, 60)} <= set(scheme.EDGES)
    assert not {(16, 0), (16, 17), (21, 22), (35, 31), (30, 31)} & set(scheme.EDGES)
    # Mirrored, the contours are the same.
    undirected = {frozenset(edge) for edge in scheme.EDGES}
    assert {frozenset((scheme.FLIP[a], scheme.FLIP[b])) for a, b in scheme.EDGES} == undirected


def test_eye_corners_and_inner_points() -> None:
    assert (scheme.RIGHT_EYE_OUTER_CORNER, scheme.LEFT_EYE_OUTER_CORNER) == (36, 45)
    assert scheme.FLIP[36] == 45
    assert list(scheme.INNER) == list(np.arange(17, 68))


def test_group_of() -> None:
    assert [scheme.group_of(i) for i in (0, 36, 47, 67)] == ["jaw", "right_eye", "left_eye", "inner_lips"]


def test_the_mesh_is_a_triangulation_of_all_points() -> None:
    sides = [pair for a, b, c in scheme.TRIANGLES for pair in ((a, b), (a, c), (b, c))]
    assert {point for triangle in scheme.TRIANGLES for point in triangle} == set(range(scheme.COUNT))
    assert set(scheme.MESH) == set(sides) and len(set(scheme.MESH)) == len(scheme.MESH)
    assert all(a < b for a, b in scheme.MESH)
    # A side belongs to two triangles, or to one on the rim; Euler: corners - sides + faces = 2.
    counts = [sides.count(side) for side in scheme.MESH]
    assert set(counts) == {1, 2}
    assert scheme.COUNT - len(scheme.MESH) + len(scheme.TRIANGLES) + 1 == 2


def test_the_mesh_has_the_contours_and_equals_its_mirror_image() -> None:
    assert {tuple(sorted(pair)) for pair in scheme.EDGES} <= set(scheme.MESH)
    mirrored = {tuple(sorted(scheme.FLIP[point] for point in triangle)) for triangle in scheme.TRIANGLES}
    assert mirrored == set(scheme.TRIANGLES)
