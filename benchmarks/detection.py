"""How surely faces are found, what is taken for one, and how long that takes: docs/detection.md, README.md.

    python benchmarks/detection.py --data DATA --yunet FILE --write
    python benchmarks/detection.py --data DATA --limit 20               # a quick trial

`--yunet` names YuNet's file, e.g. face_detection_yunet_2023mar.onnx, to measure it as well.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks import peers, photo_sets, published, speed
from benchmarks.photo_sets import FACELESS, PhotoSet, Seen, detect, false_scores, read_sets, recall
from benchmarks.published import made_by, number, table
from fkp import FaceKeypoints, hub, metrics
from fkp.detectors import yunet
from fkp.faces import FaceDetector

SIZES = (12, 20, 32, 64)
"""Where groups of faces begin, by the longer side of their box, pixels."""
ALLOWED = (0.03, 0.1, 0.3)
"""False boxes a photo at which detectors are compared on WIDER FACE."""


def measure(
    model: Path, folder: Path, yunet_file: Path | None = None, limit: int | None = None, seconds: float = 2.0
) -> dict[str, Any]:
    """Everything that is measured, of the model in one folder on the data in another."""
    times = time_detectors(model, yunet_file, seconds)  # first, before this process has made the machine warm
    own = FaceKeypoints.from_pretrained(model).face_detector
    min_score = hub.load(model).detector.min_score
    detectors: dict[str, FaceDetector] = {"fkp": own}
    if yunet_file:
        detectors["YuNet"] = yunet.YuNet(yunet_file)
    sets = read_sets(folder, limit)
    found = {name: detect(detectors, photos) for name, photos in sets.items()}
    return {
        "min_score": min_score,
        "sets": {name: of_set(sets[name], found[name]["fkp"], min_score) for name in sets},
        "wider": on_wider(found["wider"], min_score),
        "reliability": reliability(found),
        "speed": times,
        "graphs_mb": sizes_mb(model, yunet_file),
    }


def of_set(photos: PhotoSet, seen: Sequence[Seen], min_score: float) -> dict[str, Any]:
    """A set, and what is found in it at a threshold.

    `found`: percent of its faces · `false`, `false_held_out`: boxes on no face, in all photos and in those
    held out of training · `fired`: photos with such a box.
    """
    false = np.array([(each.scores[each.false] >= min_score).sum() for each in seen], int)
    held_out = np.array([each.photo.held_out for each in seen], bool)
    share = recall(seen, min_score)
    return {
        "title": photos.title, "photos": len(seen), "held_out": int(held_out.sum()),
        "faces": sum(len(each.photo.faces) for each in seen),
        "found": None if share is None else round(share, 2), "false": int(false.sum()),
        "false_held_out": int(false[held_out].sum()), "fired": int((false > 0).sum()),
    }  # fmt: skip


def on_wider(seen: Mapping[str, Sequence[Seen]], min_score: float) -> list[dict[str, Any]]:
    """Recall (percent) by size of each detector where it leaves so many false boxes a photo, and fkp's own.

    `allowed` is None for fkp at its own threshold; `sizes` are the shares found of `SIZES`, `faces` how many
    there are.
    """
    rows = []
    for allowed in (*ALLOWED, None):
        for name, some in seen.items():
            if allowed is None and name != "fkp":
                continue
            false = false_scores(some)
            threshold = min_score if allowed is None else threshold_for(false, int(allowed * len(some)))
            ranges = [*pairwise(SIZES), (SIZES[-1], np.inf)]
            shares = [recall(some, threshold, sides) for sides in ranges]
            faces = sum(len(each.photo.faces) for each in some)
            rows.append({
                "allowed": allowed, "detector": name, "threshold": round(threshold, 4), "faces": faces,
                "sizes": [None if share is None else round(share, 1) for share in shares],
                "false": int((false >= threshold).sum()), "photos": len(some),
            })  # fmt: skip
    return rows


def threshold_for(false: np.ndarray, allowed: int) -> float:
    """The least score that at most `allowed` false boxes reach, of their scores (n,)."""
    if len(false) <= allowed:
        return photo_sets.LEAST_SCORE
    return float(np.nextafter(np.sort(false)[::-1][allowed], 1))


def reliability(found: Mapping[str, Mapping[str, Sequence[Seen]]]) -> dict[str, Any]:
    """Whether of boxes (by set and detector) with score s a share s are faces, where none was trained on.

    `error`: mean distance of score and share in ten bins, weighted by their boxes · `bins`: mean score, share
    and number of boxes of each.
    """
    sets = [seen["fkp"] for name, seen in found.items() if name != "close_ups"]
    each = [one for seen in sets for one in seen if one.photo.held_out]
    hits = [one.own[(one.own >= 0) | one.false] >= 0 for one in each]
    scores = [one.scores[(one.own >= 0) | one.false] for one in each]
    error, bins = metrics.reliability(np.concatenate(scores), np.concatenate(hits))
    told = np.where(np.isfinite(bins), bins, 0).round(3).tolist()
    return {"error": None if np.isnan(error) else round(error, 3), "bins": told}


def time_detectors(model: Path, yunet_file: Path | None, seconds: float) -> dict[str, Any]:
    """The machine, and `rows`: milliseconds of each detector for a 640×480 frame, on one thread."""
    machine = speed.machine()  # and how busy it is before
    with tempfile.TemporaryDirectory() as folder:
        order = speed.stored(Path(folder), model)
        order |= {"threads": 1, "tasks": ["detector"], "batches": [], "sizes": []}
        subjects: list[speed.Subject] = [({"detector": "fkp"}, order)]
        if yunet_file:
            subjects.append(({"detector": "YuNet"}, order | {"file": str(yunet_file.resolve())}))
        rows, _, _ = speed.time_all(subjects, seconds)
    return {"machine": machine, "versions": speed.versions(), "rows": rows}


def sizes_mb(model: Path, yunet_file: Path | None) -> dict[str, float]:
    """Megabytes of the graphs that are run."""
    graphs = {"fkp": model / "onnx/detector.onnx", "fkp, 8-bit integers": model / "onnx/detector.int8.onnx"}
    files = graphs | ({"YuNet": yunet_file} if yunet_file else {})
    return {name: round(file.stat().st_size / 1e6, 2) for name, file in files.items() if file.is_file()}


def short(figures: Mapping[str, Any]) -> str:
    """README's tables, what goes with them, and the command that made them."""
    parts = [_wider(figures, [0.1]), _sets(figures), _false(figures), _speed(figures)]
    return made_by("\n\n".join(parts), figures["command"])


def pages(figures: Mapping[str, Any]) -> dict[str, str]:
    """The tables of docs/detection.md by name."""
    made = {
        "command": f"Every figure on this page: `{figures['command']}`.",
        "wider": _wider(figures, [*ALLOWED, None]),
        "sets": f"{_sets(figures)}\n\n{_false(figures)}",
        "reliability": _reliability(figures),
        "speed": f"{_speed(figures)}\n\n{speed.words_of_machine(figures['speed'])} Medians.",
    }
    return {f"detection.{name}": text for name, text in made.items()}


def _wider(figures: Mapping[str, Any], points: Sequence[float | None]) -> str:
    rows = []
    for row in figures["wider"]:
        if row["allowed"] in points:
            at = "own threshold" if row["allowed"] is None else f"{row['allowed']:g}"
            cells = [f"{row['threshold']:.3f}", *(number(share, 1) for share in row["sizes"])]
            rows.append([row["detector"], at, *cells])
    names = [f"{low} to {high} px" for low, high in pairwise(SIZES)] + [f"over {SIZES[-1]} px"]
    head = ["faces found, %", "false boxes a photo", "threshold", *names]
    one = figures["wider"][0]
    what = f"{figures['sets']['wider']['title']}: {one['photos']} photos, {one['faces']} faces."
    return f"{what}\n\n{table(head, rows, texts=2)}"


def _sets(figures: Mapping[str, Any]) -> str:
    rows = [
        [of["title"], str(of["photos"]), str(of["faces"]), number(of["found"]), str(of["false"])]
        for name, of in figures["sets"].items()
        if of["faces"] and name != "wider"
    ]
    head = ["faces", "photos", "n", f"found at {figures['min_score']:g}, %", "false boxes"]
    return table(head, rows)


def _false(figures: Mapping[str, Any]) -> str:
    told = []
    for name in FACELESS:
        of = figures["sets"][name]
        share = f"{number(100 * of['fired'] / of['photos'] if of['photos'] else None, 1)} % of them"
        if of["held_out"] < of["photos"]:
            share += f", {of['false_held_out']} on the {of['held_out']} held out of training"
        told.append(f"{of['false']} on {of['photos']} {of['title']} ({share})")
    return f"False boxes at {figures['min_score']:g}: {'; '.join(told)}."


def _reliability(figures: Mapping[str, Any]) -> str:
    bins = figures["reliability"]["bins"]
    rows = [[f"{i / 10:.1f} to {(i + 1) / 10:.1f}", f"{int(n)}", number(score, 3), number(share, 3)]
            for i, (score, share, n) in enumerate(bins) if n]  # fmt: skip
    text = f"Reliability error: {number(figures['reliability']['error'], 3)}."
    return f"{table(['score', 'boxes', 'mean score', 'share of faces'], rows)}\n\n{text}"


def _speed(figures: Mapping[str, Any]) -> str:
    times = [f"{row['detector']} {row['ms']:.1f} ms" for row in figures["speed"]["rows"]]
    sizes = [f"{name} {size:g} MB" for name, size in figures["graphs_mb"].items()]
    return f"A 640×480 frame on one thread: {', '.join(times)}; files: {', '.join(sizes)}."


def main(given: list[str] | None = None) -> None:
    parser = published.data_parser(__doc__)
    parser.add_argument("--yunet", metavar="FILE", type=Path, help="YuNet's file, to measure it as well")
    args = published.parse(parser, given, free=("model", "yunet"))
    if args.yunet and not args.yunet.is_file():
        parser.error(f"--yunet: there is no file {args.yunet}")
    figures = measure(Path(args.model), args.data, args.yunet, args.limit)
    words = "python benchmarks/detection.py --data DATA" + " --yunet FILE" * bool(args.yunet) + " --write"
    figures = {"command": words, **figures}
    print("\n\n".join([short(figures), *pages(figures).values()]))
    if args.write:
        places = {"README.md": {"detection": short(figures)}, "docs/detection.md": pages(figures)}
        published.publish("detection", places, args.model, figures)
        if "peers" in (measured := published.measured(args.model)):  # its table has faces found, too
            published.publish("peers", {"README.md": {"peers": peers.summary(measured)}})


if __name__ == "__main__":
    main()
