"""How surely faces are found, what is taken for one, and how long that takes; YuNet beside, given its file.

    python benchmarks/detection.py --data DATA                                # prints the tables
    python benchmarks/detection.py --data DATA --yunet FILE --haar PYTHON --write
    python benchmarks/detection.py --data DATA --limit 20 --plots DIR         # a quick trial
    python benchmarks/detection.py --data DATA --hard 20 DIR                  # hard cases, to look at

A face is found when a box overlaps the tight box of its labels by IoU 0.5 or more, each box serving one face,
best score first. A box that is no labelled face's is a false one, unless it lies where `face_boxes.csv` knows
of a face without labels, or of what may be one. Two thirds of the photos without a face, scenes among them,
are training photos of the bundled detector's, so the third held out is counted apart; no other photo here is.

`--write` puts the figures into the model's metrics.json, the tables into README.md and docs/detection.md and
the plot into docs/. `--yunet` names face_detection_yunet_2023mar.onnx, `--haar` a Python whose OpenCV is 4.x.
DATA is the folder that README.md describes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import (  # noqa: E402
    collages,
    detection_figures,
    detection_plot,
    detection_tables,
    detector_speed,
    hard,
    photo_sets,
    published,
    speed,
)
from benchmarks.published import DOCS, arguments, publish  # noqa: E402
from fkp import hub  # noqa: E402
from fkp.detectors import yunet  # noqa: E402
from fkp.faces import FaceDetector  # noqa: E402

COLLAGES, BIG, FILLED, FITTED = 150, 8, 20, 400
"""How many group pictures, big pictures, faces that fill a frame, and training photos for the fits."""
FRAMES = ((640, 480), (1920, 1080), (4000, 3000))


class Results(NamedTuple):
    """`figures` as they go into metrics.json, and the finds that the plot needs besides.

    `mapped` are those of every detector, by set, mapped by its fit.
    """

    figures: dict[str, Any]
    mapped: detection_figures.Finds


def measure(
    model: Path, folder: Path, yunet_file: Path | None = None, haar: str | None = None,
    limit: int | None = None, seconds: float = detector_speed.SECONDS,
) -> Results:  # fmt: skip
    """Everything that is measured, of the model in one folder on the data in another."""
    stuff = collages.material(folder)
    big = {name: photo_sets.spread(some, limit) for name, some in big_sets(stuff).items()}
    # First of all, before this process has made the machine warm.
    frames = {detector_speed.FRAME: speed.pictures()[detector_speed.FRAME]}
    frames |= {name: some[0].read() for name, some in big.items() if some}
    times = detector_speed.measure(model, frames, yunet_file, haar, seconds)

    own = hub.load(model).face_detector
    detectors: dict[str, FaceDetector] = {"fkp": own}
    if yunet_file:
        detectors["YuNet"] = yunet.YuNet(yunet_file)
    sets = all_sets(folder, stuff, limit)
    seen = {name: photo_sets.detect(detectors, some.photos, some.title) for name, some in sets.items()}
    seen |= {name: photo_sets.detect(detectors, some, name) for name, some in big.items()}
    training = photo_sets.detect(detectors, photo_sets.training_photos(folder, limit or FITTED), "fits")
    fits = {name: photo_sets.fit(some) for name, some in training.items()}
    mapped = {
        name: {detector: [fits[detector].of(each) for each in finds] for detector, finds in found.items()}
        for name, found in seen.items()
    }

    raw, min_score = {name: found["fkp"] for name, found in seen.items()}, own.config.min_score
    weights = {"fkp": detector_speed.weights_mb(model)}
    if yunet_file:
        weights["YuNet"] = round(yunet_file.stat().st_size / 1e6, 3)
    figures = {
        "min_score": min_score,
        "sets": {name: detection_figures.of_set(some, raw[name], min_score) for name, some in sets.items()},
        **detection_figures.thresholds(raw, min_score),
        "fits": {name: each._asdict() for name, each in fits.items()},
        "beside": detection_figures.beside(mapped, {"fkp": min_score, "YuNet": yunet.MIN_SCORE}),
        "collages": detection_figures.group_pictures(raw, mapped, min_score),
        "big": [detection_figures.of_big(name, raw[name], min_score) for name in big],
        "speed": times,
        "weights_mb": weights,
        "end_to_end": detection_figures.end_to_end(model, folder, limit),
    }
    return Results(figures, mapped)


def all_sets(folder: Path, stuff: collages.Material, limit: int | None) -> dict[str, photo_sets.PhotoSet]:
    """The sets of real photos, and the group pictures, by name."""
    groups = photo_sets.spread(collages.group_pictures(stuff, COLLAGES), limit)
    title = photo_sets.TITLES["collages"]
    return photo_sets.read_sets(folder, limit) | {"collages": photo_sets.PhotoSet("collages", title, groups)}


def big_sets(stuff: collages.Material) -> dict[str, list[collages.Collage]]:
    """Pictures by what they show: small faces in big photos, and a face that fills the frame."""
    width, height = collages.BIG_WH
    sets = {f"{width}×{height}, faces of {collages.BIG_SIDE:g} px": collages.big_pictures(stuff, BIG)}
    for width, height in FRAMES:
        name = f"{width}×{height}, filled by one face"
        sets[name] = collages.filled_frames(stuff, FILLED, (width, height))
    return sets


# --- The command line ---------------------------------------------------------------------------------------


def command(args: argparse.Namespace) -> str:
    """The command that made the figures, without anyone's folders."""
    words = "python benchmarks/detection.py --data DATA"
    words += " --yunet FILE" * bool(args.yunet) + " --haar PYTHON" * bool(args.haar)
    return words + " --write"


def parse(given: list[str] | None) -> argparse.Namespace:
    """The command line; a wrong one ends the program with status 2 and a sentence."""
    parser = arguments(str(__doc__))
    parser.add_argument("--yunet", metavar="FILE", type=Path, help="YuNet's file, to measure it as well")
    parser.add_argument("--haar", metavar="PYTHON", help="a Python with OpenCV 4.x, to time Haar cascades")
    parser.add_argument("--hard", metavar=("N", "DIR"), nargs=2, help="instead: sheets of N hard cases")
    args = published.parse(parser, given, sheets="hard")
    if args.yunet and not args.yunet.is_file():
        parser.error(f"--yunet: there is no file {args.yunet}")
    if args.haar and shutil.which(args.haar) is None:
        parser.error(f"--haar: {args.haar} is no program that can be started")
    return args


def main(given: list[str] | None = None) -> int:
    args = parse(given)
    try:
        if args.hard:
            return show_hard(args)
        results = measure(Path(args.model), args.data, args.yunet, args.haar, args.limit)
    except (hub.WeightsError, ValueError, OSError) as error:
        print(f"detection.py: {error}", file=sys.stderr)
        return 1
    figures = {"command": command(args), **results.figures}
    pages = detection_tables.pages(figures)
    print("\n\n".join([detection_tables.short(figures), *pages.values()]))
    if args.plots or args.write:
        detection_plot.write(args.plots or DOCS, figures, results.mapped)
    if args.write:
        publish(Path(args.model), "detection", figures, detection_tables.short(figures), pages)
    return 0


def show_hard(args: argparse.Namespace) -> int:
    """Write sheets of hard cases and a list of them; the paths go to stdout."""
    count, folder = args.hard
    own = hub.load(args.model).face_detector
    seen = {}
    for name, some in all_sets(args.data, collages.material(args.data), args.limit).items():
        finds = photo_sets.detect({"fkp": own}, some.photos, some.title)["fkp"]
        seen[name] = [each.above(own.config.min_score) for each in finds]
    for path in hard.write_sheets(folder, seen, count):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
