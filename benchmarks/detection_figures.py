"""Figures of what detectors found; `benchmarks/detection.py` tells of what and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import collages, faces
from benchmarks.photo_sets import FACELESS, LABELLED, LEAST_SCORE, PhotoSet, Seen, false_scores, recall
from fkp import metrics
from fkp.pipeline import FaceKeypoints

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
FEW = {"no_faces": 3, "scenes": 10}
"""False boxes that are few enough, on all photos of each set."""
ALLOWED = (0, 1, 3, 10)
"""False boxes on `no_faces` at which detectors are compared."""
OVERLAPS = (0.5, 0.6, 0.7, 0.8)
SMALL = 24.0
"""Faces in group pictures are to be found from this size on, pixels."""
BINS = {"side": (16, 24, 32, 64, 128, 200), "turn": (0, 15, 30, 45), "cut": (0, 1e-6, 0.15, 0.3, 0.45)}
"""Edges of the bins of group pictures' faces: pixels, degrees, the share beyond the edge."""

Finds = Mapping[str, Mapping[str, Sequence[Seen]]]
"""What was seen, by set and detector."""


def rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 2)


def of_set(photos: PhotoSet, seen: Sequence[Seen], min_score: float) -> dict[str, Any]:
    """A set, and how well boxes on it fit: `ap` (mean over OVERLAPS) and `ap50`, percent, and the mean `iou`
    of the faces found at the threshold, likewise."""
    found = [each.found for each in seen]
    figures: dict[str, Any] = {
        "title": photos.title, "photos": len(seen), "faces": sum(each.faces for each in found),
        "held_out": sum(photo.held_out for photo in photos.photos),
    }  # fmt: skip
    if figures["faces"]:
        precisions = [100 * metrics.average_precision(found, least) for least in OVERLAPS]
        overlaps = np.concatenate([each.above(min_score).overlaps for each in found])
        figures |= {"ap": rounded(float(np.mean(precisions))), "ap50": rounded(precisions[0])}
        figures["iou"] = rounded(100 * overlaps[overlaps > 0].mean()) if (overlaps > 0).any() else None
    return figures


def of_big(name: str, seen: Sequence[Seen], min_score: float) -> dict[str, Any]:
    """Pictures of one kind: recall (percent) and false boxes at the threshold."""
    return {
        "what": name, "photos": len(seen), "faces": sum(len(each.photo.faces) for each in seen),
        "recall": rounded(recall(seen, min_score)),
        "false_boxes": int((false_scores(seen) >= min_score).sum()),
    }  # fmt: skip


# --- Thresholds ---------------------------------------------------------------------------------------------


def score_allowing(allowed: int, faceless: Iterable[Seen]) -> float:
    """The least score, of those that were asked for, that at most `allowed` false boxes reach."""
    return max(LEAST_SCORE, metrics.threshold_for(false_scores(faceless), allowed))


def thresholds(raw: Mapping[str, Sequence[Seen]], min_score: float) -> dict[str, Any]:
    """`few_false`: the least threshold that leaves no more false boxes than FEW says · `thresholds`: rows."""
    few = max(score_allowing(allowed, raw[name]) for name, allowed in FEW.items())
    return {
        "few_false": few,
        "thresholds": [threshold_row(raw, score) for score in sorted({*THRESHOLDS, min_score, few})],
    }


def threshold_row(raw: Mapping[str, Sequence[Seen]], score: float) -> dict[str, Any]:
    """At a threshold: recall (percent) by set, in `off` false boxes in 100 photos of each set with faces, and
    false boxes on the sets without, all and those on photos held out of training."""
    row: dict[str, Any] = {"threshold": score, "off": {}}
    for name in LABELLED:
        row[name] = rounded(recall(raw[name], score))
        row["off"][name] = rounded(100 * (false_scores(raw[name]) >= score).sum() / max(1, len(raw[name])))
    row["collages"] = recall_from(raw["collages"], score)
    for name in FACELESS:
        held_out = [each for each in raw[name] if each.photo.held_out]
        row[name] = int((false_scores(raw[name]) >= score).sum())
        row[f"{name}_held_out"] = int((false_scores(held_out) >= score).sum())
    return row


def beside(mapped: Finds, own_scores: Mapping[str, float]) -> list[dict[str, Any]]:
    """Recall (percent) of every detector at as many false boxes on `no_faces`, and at its own threshold."""
    rows = []
    for allowed in (*ALLOWED, None):
        for name, faceless in mapped["no_faces"].items():
            score = own_scores[name] if allowed is None else score_allowing(allowed, faceless)
            row: dict[str, Any] = {"allowed": allowed, "detector": name, "threshold": score}
            for kind in FACELESS:
                row[kind] = int((false_scores(mapped[kind][name]) >= score).sum())
            row |= {kind: rounded(recall(mapped[kind][name], score)) for kind in LABELLED}
            row["collages"] = recall_from(mapped["collages"][name], score)
            rows.append(row)
    return rows


# --- Group pictures -----------------------------------------------------------------------------------------


def pasted(seen: Iterable[Seen], score: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Whether each pasted face (n,) was found at a threshold; sides, turns to either side and cuts (n,)."""
    hits: list[bool] = []
    values: dict[str, list[float]] = {by: [] for by in BINS}
    for each in seen:
        assert isinstance(each.photo, collages.Collage)
        hits += each.above(score).hits().tolist()
        for one in each.photo.pasted:
            for by, value in (("side", one.side), ("turn", abs(one.turn)), ("cut", one.cut)):
                values[by].append(value)
    return np.array(hits, bool), {by: np.array(some) for by, some in values.items()}


def recall_from(seen: Iterable[Seen], score: float, least: float = SMALL) -> float | None:
    """Recall (percent) of the faces in group pictures whose longer side has `least` pixels or more."""
    hits, values = pasted(seen, score)
    return share(hits[values["side"] >= least])


def share(hits: np.ndarray) -> float | None:
    """How many of hits (n,) are true, percent; None of none."""
    return rounded(100 * hits.mean()) if len(hits) else None


def group_pictures(raw: Mapping[str, Sequence[Seen]], mapped: Finds, min_score: float) -> dict[str, Any]:
    """Recall (percent) of the faces in group pictures, in `rows` by BINS, at several `points`.

    A point is a detector at a `threshold` and its `false_boxes` there: fkp's as it is, and every detector's,
    mapped, at which few false boxes are left on `no_faces`. Turns and cuts are told of faces of SMALL pixels
    and more. `to` is None where there is no limit.
    """
    few = FEW["no_faces"]
    at = {"fkp": (raw["collages"], min_score)}
    for name, seen in mapped["collages"].items():
        at[f"{name}, few"] = seen, score_allowing(few, mapped["no_faces"][name])
    found = {name: pasted(*each) for name, each in at.items()}
    bins = [(by, *pair) for by, edges in BINS.items() for pair in zip(edges, edges[1:], strict=False)]
    rows: list[dict[str, Any]] = []
    for by, least, most in [("side", 0.0, None), ("side", SMALL, None), *bins]:
        row: dict[str, Any] = {"by": by, "from": least, "to": most}
        for name, (hits, values) in found.items():
            chosen = values[by] >= least
            if most is not None and most != BINS[by][-1]:  # the last bin holds all that is more
                chosen &= values[by] < most
            if by != "side":
                chosen &= values["side"] >= SMALL
            row |= {"faces": int(chosen.sum()), name: share(hits[chosen])}
        rows.append(row)
    points = {
        name: {"threshold": score, "false_boxes": int((false_scores(seen) >= score).sum())}
        for name, (seen, score) in at.items()
    }
    return {"seed": collages.SEED, "points": points, "rows": rows}


# --- Keypoints ----------------------------------------------------------------------------------------------


def end_to_end(model: Path, folder: Path, limit: int | None) -> list[dict[str, Any]]:
    """NME of keypoints in true boxes and in detected ones, of the faces that the detector finds.

    Each set in its own labelling style; `more`: by how much the detected boxes are worse, percent.
    """
    rows = []
    for test in (test for test in faces.SETS if test.name in LABELLED):
        asked = FaceKeypoints.from_pretrained(model, label_style=test.style)
        labelled = faces.read(test, folder, limit)
        boxes = faces.detect(asked, labelled)
        found = ~np.isnan(boxes).any(axis=1)
        row: dict[str, Any] = {"set": test.name, "style": test.style, "n": len(found)}
        row |= {"missed": int((~found).sum()), "truth": None, "detected": None, "more": None}
        if found.any():
            truth, detected = (
                metrics.nme(faces.place(asked, labelled, some).keypoints, labelled.keypoints)[found].mean()
                for some in (None, boxes)
            )
            row |= {"truth": rounded(truth), "detected": rounded(detected)}
            row["more"] = rounded(100 * (detected / truth - 1))
        rows.append(row)
    return rows
