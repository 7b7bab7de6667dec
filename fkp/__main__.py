"""The command line `fkp`, or `python -m fkp`: predict, label, video, evaluate, push, space and export.

Results go to stdout, everything else to stderr. The exit status is 0 when all went well, 1 when something
could not be done (a sentence says what), 2 for a wrong command line, 130 after Ctrl-C. Files are written
beside and moved into place; without `--force`, none is overwritten that fkp has not written.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fkp import __version__, outputs, scheme
from fkp.arguments import count, share
from fkp.detectors import DETECTORS
from fkp.outputs import STDOUT, printable, show, tell

if TYPE_CHECKING:
    import numpy as np

    from fkp import FaceKeypoints

# Spinning OpenMP threads made torch up to 50 times slower on shared cores; read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class _Stop(Exception):
    """The command cannot go on; the message is the sentence for the user."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    outputs.show_any_name()
    args = _parser().parse_args(arguments)
    # Only now, for they bring in torch, which takes seconds.
    from fkp import hub, images, runtime

    refusals = (_Stop, hub.WeightsError, images.ImageError, runtime.BackendError)
    return outputs.run(lambda: args.command(args), refusals)


def _with_bar(pictures: Sequence[str]) -> Iterable[str]:
    """The same, with a bar on a terminal where there are several."""
    if len(pictures) < 2:
        return pictures
    from tqdm import tqdm  # takes as long to import as a face

    return tqdm(pictures, unit="picture", disable=None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fkp", description="68 keypoints on every face in a picture")
    parser.add_argument("--version", action="version", version=f"fkp {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=help)
        added.set_defaults(command=command)
        return added

    predict = add("predict", _predict, "find the faces in pictures and their keypoints")
    predict.add_argument("pictures", metavar="PICTURE", nargs="+", help="a picture file")
    _add_model(predict)
    _add_options(predict)
    predict.add_argument("--out", metavar="DIR", type=Path, help="write pictures with keypoints, as PNG")
    predict.add_argument("--json", metavar="FILE", type=Path, help="write a JSON array (- for stdout)")
    predict.add_argument("--csv", metavar="FILE", type=Path, help="write a CSV, a row for each face")
    predict.add_argument("--min-score", metavar="S", type=share, help="least confidence of a face, 0..1")
    predict.add_argument("--max-faces", metavar="N", type=count, help="only the N largest faces")
    predict.add_argument(
        "--resume", action="store_true",
        help="go on with a run that broke off, with the same options (they are not compared): what its JSON, "
        "CSV and pictures hold is not done again",
    )  # fmt: skip
    _add_force(predict)
    predict.add_argument("--verbose", action="store_true", help="say on stderr what ran, and how long")

    label = add("label", _label, "label many pictures: a folder, tar or Parquet shards, a dataset on the Hub")
    label.add_argument(
        "source", metavar="SOURCE",
        help="a folder of pictures or of tar or Parquet shards, 'DIR/*.tar', a text file with a path a line, "
        "or hf://datasets/OWNER/NAME",
    )  # fmt: skip
    label.add_argument(
        "--out", metavar="DIR", type=Path, required=True,
        help="folder of the results, a Parquet file for each shard; what is finished there is skipped",
    )  # fmt: skip
    label.add_argument("--workers", metavar="N", type=count, help="processes (default: one for each core)")
    label.add_argument("--ray", metavar="ADDRESS", help="work on this Ray cluster, or 'auto'")
    label.add_argument("--gpus", metavar="G", type=float, default=0, help="of each Ray worker (default: 0)")
    label.add_argument("--column", metavar="NAME", help="column of Parquet shards that holds the pictures")
    label.add_argument("--key", metavar="NAME", help="column of Parquet shards that names them")
    label.add_argument(
        "--format", choices=("coco", "cvat", "label-studio"),
        help="write this too, for an annotation tool, the least sure pictures first",
    )  # fmt: skip
    label.add_argument("--overwrite", action="store_true", help="do anew what other weights or settings did")
    _add_model(label)
    _add_options(label)
    label.add_argument("--min-score", metavar="S", type=share, help="least confidence of a face, 0..1")
    label.add_argument("--max-faces", metavar="N", type=count, help="only the N largest faces")

    video = add("video", _video, "follow the faces of a clip and their keypoints")
    video.add_argument("clip", metavar="IN", help="a video file")
    video.add_argument(
        "out", metavar="OUT", type=Path, nargs="?",
        help="write the clip with keypoints, as .mp4, .m4v, .mov, .webm or .mkv",
    )  # fmt: skip
    _add_model(video)
    _add_options(video)
    video.add_argument("--json", metavar="FILE", type=Path, help="write JSON, all frames and their faces")
    video.add_argument("--csv", metavar="FILE", type=Path, help="write a CSV, a row for each frame and face")
    video.add_argument("--min-score", metavar="S", type=share, help="least confidence of a new face, 0..1")
    video.add_argument("--max-faces", metavar="N", type=count, help="follow only N faces at a time")
    video.add_argument("--no-smoothing", action="store_true", help="keypoints as the network gives them")
    video.add_argument("--no-numbers", action="store_true", help="do not write the numbers of faces on OUT")
    _add_force(video)
    video.add_argument("--verbose", action="store_true", help="say on stderr what ran, and how long")

    evaluate = add("evaluate", _evaluate, "measure a model on labelled faces")
    evaluate.add_argument("--csv", metavar="CSV", type=Path, required=True, help="labels, a row for a face")
    evaluate.add_argument("--images", metavar="DIR", type=Path, required=True, help="folder of the pictures")
    _add_model(evaluate)
    _add_options(evaluate)
    evaluate.add_argument(
        "--boxes", choices=("truth", "detected"), default="truth",
        help="crop at the labels' boxes, or at those the model finds (default: truth)",
    )  # fmt: skip
    evaluate.add_argument("--json", metavar="FILE", type=Path, help="write JSON (- for stdout)")
    _add_force(evaluate)

    push = add("push", _push, "upload a model to the Hugging Face Hub")
    push.add_argument("repo_id", metavar="OWNER/NAME")
    _add_model(push)
    push.add_argument("--private", action="store_true", help="for your eyes only, if it is a new one")
    push.add_argument("--out", metavar="DIR", type=Path, help="keep the folder there")
    push.add_argument("--dry-run", action="store_true", help="upload nothing, only show the files")

    space = add("space", _space, "build and upload a Hugging Face Space that serves the page")
    space.add_argument("repo_id", metavar="OWNER/NAME")
    space.add_argument("--model", metavar="M", help="OWNER/NAME on the Hub of its weights (default: bundled)")
    space.add_argument("--revision", metavar="REV", help="commit, branch or tag of the model")
    space.add_argument(
        "--hardware", metavar="NAME",
        help="what it runs on, as cpu-basic (default: zero-a10g, a GPU that is lent when it is needed)",
    )  # fmt: skip
    space.add_argument(
        "--static", action="store_true",
        help="a Static Space: the edition that runs wholly in the visitor's browser, hosted for free",
    )
    space.add_argument("--private", action="store_true", help="for your eyes only, if it is a new one")
    space.add_argument("--out", metavar="DIR", type=Path, help="keep the folder there")
    space.add_argument("--dry-run", action="store_true", help="upload nothing, only show the files")

    export = add("export", _export, "write the keypoint network as ONNX, also with 8-bit integers")
    export.add_argument("file", metavar="FILE.onnx", type=Path)
    _add_model(export)
    _add_force(export)
    return parser


def _add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="overwrite files that are not of fkp's making")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="M", help="folder, or OWNER/NAME on the Hub (default: bundled)")


def _add_options(parser: argparse.ArgumentParser) -> None:
    """How the model is to work; see `_load`."""
    parser.add_argument(
        "--backend", metavar="NAME",
        help="what runs the networks: onnxruntime, onnxruntime-int8, torch or torch-compile (default: the "
        "fastest that can be had)",
    )  # fmt: skip
    parser.add_argument(
        "--device", metavar="NAME", default="cpu",
        help="cpu, cuda, mps, or auto: a GPU where there is one (default: cpu)",
    )  # fmt: skip
    parser.add_argument(
        "--detector", choices=DETECTORS, default="fkp",
        help="what finds the faces: fkp, OpenCV's yunet (the file that FKP_YUNET names, or from the Hub), or "
        "whole: every picture is one face (default: fkp)",
    )  # fmt: skip
    parser.add_argument("--mirrored", action="store_true", help="average with each face's mirrored crop")
    parser.add_argument(
        "--passes", type=_passes, choices=("auto", 1, 2), default="auto",
        help="auto: more passes for faces whose points come out unsure, turned, upright and framed by their "
        "points; 1: one pass; 2: every face framed anew (default: auto)",
    )  # fmt: skip
    parser.add_argument(
        "--label-style", choices=scheme.LABEL_STYLES,
        help="label as a data set does, its annotation offset included: 300w, ytf (jaw along the hidden side "
        "of the head) or merl (default: none of them, points where they are seen)",
    )  # fmt: skip


def _passes(text: str) -> str | int:
    return int(text) if text.isdigit() else text


# --- The commands -------------------------------------------------------------------------------------------


def _predict(args: argparse.Namespace) -> int:
    from fkp import images, report, results

    if args.csv == STDOUT:
        raise _Stop("--csv needs a file's name, only --json takes -")
    if args.resume and not any(path and path != STDOUT for path in (args.json, args.csv, args.out)):
        raise _Stop("--resume needs the file of --json or --csv, or the folder of --out, of the run before")
    names = annotated_names(args.pictures) if args.out else {}
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    drawn = {picture: args.out / name for picture, name in names.items()}
    files = {"--json": args.json, "--csv": args.csv} | {f"{name} of --out": p for name, p in drawn.items()}
    if not (args.json or args.csv or args.out):
        files["the words"] = STDOUT
    outputs.check(files, args.pictures, args.force)
    model = _load(args)
    status = 0
    with (
        outputs.naming(STDOUT),  # where errors are from that name no file
        _kept_by_resume(args),
        results.Results(args.json, args.csv, resume=args.resume, force=args.force) as found,
    ):
        done = {name for name in args.pictures if report.harmless(name) in found.done}
        if args.resume and not (args.csv or args.json):
            done = set(args.pictures)
        todo = [name for name in args.pictures if name not in done or drawn and not _shows(drawn[name], name)]
        for name in _with_bar(todo):
            try:
                image, _, complete = images.read_file(name)
            except images.ImageError as error:
                tell(str(error))
                status = 1
                continue
            if not complete:
                tell(f"{name}: {images.INCOMPLETE}")
            began = time.perf_counter()
            faces = model(image, min_score=args.min_score, max_faces=args.max_faces)
            took = 1e3 * (time.perf_counter() - began)
            if args.verbose:
                tell(f"{name}: {_count_faces(len(faces))}, {took:.1f} ms")
            record = report.record(name, image.shape, faces, complete)
            if args.out:
                from fkp import draw

                _write_png(drawn[name], draw.draw(image, faces), name)
            found.add(record)
            if not (args.json or args.csv or args.out):
                show(printable(_in_words(record)))
    return status


@contextlib.contextmanager
def _kept_by_resume(args: argparse.Namespace) -> Iterator[None]:
    """Says, when a run breaks off, what is kept of it."""
    try:
        yield
    except outputs.OutputError:
        raise
    except (KeyboardInterrupt, OSError):
        kept = [
            path for path in (args.json, args.csv) if path and path != STDOUT and outputs.part(path).exists()
        ]
        if kept or args.out:
            where = " and ".join(str(outputs.part(path)) for path in kept) or str(args.out)
            tell(f"what was done until now is in {where}: the same command with --resume goes on")
        raise


def _write_png(path: Path, image: np.ndarray, name: str) -> None:
    """A picture (H,W,3) as PNG, which says that it is of fkp's making, and for `_shows` of which picture."""
    from PIL import Image, PngImagePlugin

    made = PngImagePlugin.PngInfo()
    made.add_text("Software", outputs.MARK.decode())
    made.add_text("Source", _fingerprint(name))
    with outputs.replacing(path, "wb") as file:
        Image.fromarray(image).save(file, "PNG", pnginfo=made)


def _shows(path: Path, name: str) -> bool:
    """Whether a file is the drawn picture of the one of this name."""
    from PIL import PngImagePlugin

    try:
        with PngImagePlugin.PngImageFile(path) as image:
            return image.info.get("Source") == _fingerprint(name)
    except (OSError, SyntaxError, ValueError):  # none, or no PNG
        return False


def _fingerprint(name: str) -> str:
    """Of a picture's name, which itself would tell whoever gets the drawn one where it lay."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()


def _label(args: argparse.Namespace) -> int:
    try:
        from fkp import label
        from fkp.label import annotation
    except ImportError as error:
        raise _Stop(str(error)) from error
    names = ("backend", "detector", "device", "label_style", "mirrored", "passes")
    options = {name: getattr(args, name) for name in names if hasattr(args, name)}
    settings = label.Settings(args.model, options, args.min_score, args.max_faces)
    if args.format:
        annotation.check(args.format, args.out)
    try:
        summary = label.label(
            args.source, args.out, settings, workers=args.workers, ray=args.ray, gpus=args.gpus,
            column=args.column, key=args.key, overwrite=args.overwrite,
        )  # fmt: skip
        show(str(summary))
        if args.format:
            show(printable(str(annotation.write(args.format, args.out))))
    except (ValueError, label.WorkerDied) as error:
        raise _Stop(str(error)) from error
    return 1 if summary.problems else 0


def _video(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    try:
        from fkp import video as room
        from fkp.video import clip_io
    except ImportError as error:
        raise _Stop(str(error)) from error

    if not (args.out or args.json or args.csv):
        raise _Stop("nothing is to be written: name a video OUT, or give --json or --csv")
    if STDOUT in (args.json, args.csv):
        raise _Stop("--json and --csv need a file's name")
    outputs.check({"OUT": args.out, "--json": args.json, "--csv": args.csv}, [args.clip], args.force)
    model = _load(args)
    steps = room.annotate(
        args.clip, args.out, model, json_file=args.json, csv_file=args.csv, numbers=not args.no_numbers,
        smoothing=not args.no_smoothing, min_score=args.min_score, max_faces=args.max_faces,
    )  # fmt: skip
    done: room.Progress | None = None
    try:
        # Closed whatever happens, so that nothing half-written stays; disable=None: a bar on a terminal only.
        with (
            contextlib.closing(steps),
            _Interruption() as interruption,
            tqdm(unit="frame", disable=None) as bar,
        ):
            for done in steps:
                bar.total = done.total and max(done.total, done.frames)
                bar.update()
                if interruption.noted:
                    with contextlib.suppress(StopIteration):
                        steps.send(True)
                    tell(f"stopped at {done.time:.1f} s; what was done until then is written")
                    return 130
    except (clip_io.ClipError, OSError) as error:
        if kept := [str(outputs.part(path)) for path in (args.json, args.csv) if path and done]:
            tell(f"the keypoints until there are in {' and '.join(kept)}")
        if isinstance(error, OSError):
            raise
        raise _Stop(str(error)) from error
    if args.verbose and done:
        frames = f"{done.frames} frames in {done.elapsed:.1f} s, {_count_faces(done.faces)}"
        tell(f"{frames}; the detector ran on {done.detector_runs}")
    return 0


class _Interruption:
    """Ctrl-C, or what `outputs.run` takes for it, noted to be obeyed between frames; a second at once."""

    def __init__(self) -> None:
        self.noted = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        with contextlib.suppress(ValueError):  # not in the main thread
            asked = [s for s in outputs.ENDINGS if signal.getsignal(s) == signal.default_int_handler]
            self._before = {int(s): signal.signal(s, self._note) for s in asked}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        self.noted = True
        self.__exit__()


def _evaluate(args: argparse.Namespace) -> int:
    import numpy as np

    from fkp import data, evaluation, geometry

    outputs.check({"--json": args.json or STDOUT}, [args.csv], args.force)
    model = _load(args)
    try:
        faces = data.FacialKeypointsDataset(args.csv, args.images)
    except data.DataError as error:
        raise _Stop(str(error)) from error
    if not len(faces):
        raise _Stop(f"{args.csv}: it holds no face, only a header")
    boxes = geometry.tight_boxes(faces.keypoints)
    flat = np.flatnonzero((boxes[:, 2:] <= boxes[:, :2]).any(axis=1))
    if len(flat):
        raise _Stop(f"{args.csv}: the points of {faces.names[flat[0]]} lie on a line, that is no face")
    keypoints, _ = evaluation.predict(model, faces, args.boxes)
    figures = evaluation.summarise(keypoints, faces.keypoints)
    if args.json:
        _write(args.json, json.dumps(figures) + "\n")
    if args.json != STDOUT:
        show(_FIGURES.format_map({name: "-" if value is None else value for name, value in figures.items()}))
    return 0


_FIGURES = """\
faces {n}, missed {missed}
NME {nme} over the labelled points, {nme_inner} over those of the inner 51, median {median}
FR@8 {fr8}, FR@10 {fr10}, AUC@8 {auc8}
NME_box {nme_box}
All in percent, errors of the distance between the outer eye corners, NME_box of the size of the box."""


def _push(args: argparse.Namespace) -> int:
    from fkp import FaceKeypoints, hub
    from fkp.hub import download, publish

    _check_shown(args)
    if not args.dry_run:
        publish.check_push(args.repo_id)
    elif not download.is_id(args.repo_id):
        raise _Stop(f"{args.repo_id!r} is no Hub id of the form OWNER/NAME")
    if args.out and args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise _Stop(f"{args.out} is there already: name a new or an empty folder")
    model = FaceKeypoints.from_pretrained(args.model)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.out or Path(temporary)
        model.save_pretrained(folder, repo_id=args.repo_id)
        _show_files(hub.files(folder))
        if not args.dry_run:
            show(publish.push(folder, args.repo_id, private=args.private))
    return 0


def _space(args: argparse.Namespace) -> int:
    from fkp import hub

    try:
        from fkp.demo import space
    except ImportError as error:
        raise _Stop(f"a Space needs {error.name}: run 'pip install \"fkp[demo]\"'") from error
    _check_shown(args)
    if args.static and args.hardware:
        raise _Stop("--hardware is for a Space that runs the page: a static one runs in visitors' browsers")
    try:
        if args.static:
            weights = hub.find(args.model, revision=args.revision)
            with tempfile.TemporaryDirectory() as temporary:
                folder = args.out or Path(temporary)
                _show_files(space.build_static(args.repo_id, folder, weights))
                if not args.dry_run:
                    show(space.push_static(args.repo_id, folder, private=args.private))
            return 0
        wanted = space.Space(args.repo_id, args.model, args.revision, args.hardware or space.ZERO_GPU)
        with tempfile.TemporaryDirectory() as temporary:
            folder = args.out or Path(temporary)
            _show_files(space.build(wanted, folder))
            for name, value in wanted.variables.items():
                show(f"variable {name}={value}")
            if not args.dry_run:
                show(space.push(wanted, folder, private=args.private))
    except space.SpaceError as error:
        raise _Stop(str(error)) from error
    return 0


def _export(args: argparse.Namespace) -> int:
    from fkp import FaceKeypoints

    try:
        from fkp.networks import export
    except ImportError as error:
        raise _Stop(f"exporting needs {error.name}: run 'pip install \"fkp[export]\"'") from error
    if args.file == STDOUT or not args.file.name:
        raise _Stop(f"{args.file}: a file's name is needed, for two files are written")
    if args.file.name.lower().endswith(_INT8):
        raise _Stop(f"{args.file}: {_INT8} is how the graph of 8-bit integers ends, written beside FILE.onnx")
    small = args.file.with_suffix(_INT8)
    outputs.check({"the graph": args.file, "that of 8-bit integers": small}, force=args.force)
    if not outputs.is_file(args.file):
        raise _Stop(f"{args.file}: no file can be written there")
    model = FaceKeypoints.from_pretrained(args.model)
    try:
        network, digest = model.weights.module("keypoints"), model.weights.digest("keypoints")
        writers = {args.file: export.write_onnx}
        if network.config.activation_ranges:
            writers[small] = export.write_int8_onnx
        for path, write in writers.items():
            with outputs.replacing(path, "wb") as file:
                try:
                    write(network, file.name, digest)
                except export.ExportError as error:
                    if isinstance(error.__cause__, OSError):  # of which the file's own name is to be said
                        raise error.__cause__ from None
                    raise
    except export.ExportError as error:
        raise _Stop(str(error)) from error
    return 0


_INT8 = ".int8.onnx"


# --- What they share ----------------------------------------------------------------------------------------


def _load(args: argparse.Namespace) -> FaceKeypoints:
    """The model with the options that `_add_options` adds; with `--verbose`, what runs is said on stderr."""
    from fkp import FaceKeypoints

    model = FaceKeypoints.from_pretrained(
        args.model,
        label_style=args.label_style,
        backend=args.backend,
        device=args.device,
        mirrored=args.mirrored,
        passes=args.passes,
        detector=args.detector,
    )
    if getattr(args, "verbose", False):
        for line in model.describe():
            tell(line)
    return model


def annotated_names(pictures: Sequence[str]) -> dict[str, str]:
    """The PNG's name for every picture: no two the same, and none that of a picture itself."""
    names: dict[str, str] = {}
    taken = {Path(picture).name.casefold() for picture in pictures}
    for picture in dict.fromkeys(pictures):
        # File systems take 255 bytes, of which some go to a number and to what a file is called until whole.
        stem = f"{os.fsdecode(os.fsencode(Path(picture).stem)[:220])}_keypoints"
        name, number = f"{stem}.png", 1
        while name.casefold() in taken:  # some file systems do not tell a.png from A.png
            number += 1
            name = f"{stem}_{number}.png"
        names[picture] = name
        taken.add(name.casefold())
    return names


def _in_words(record: dict[str, Any]) -> str:
    faces = record["faces"]
    lines = [f"{record['image']}: {_count_faces(len(faces))}"]
    for face in faces:
        x1, y1, x2, y2 = (round(v) for v in face["box"])
        points = sum(face["keypoint_scores"]) / len(face["keypoint_scores"])
        lines.append(f"  x {x1}..{x2}, y {y1}..{y2}: score {face['score']:.2f}, of its points {points:.2f}")
    return "\n".join(lines)


def _count_faces(count: int) -> str:
    return f"{count or 'no'} face{'' if count == 1 else 's'}"


def _check_shown(args: argparse.Namespace) -> None:
    """Raise OutputError where nothing but stdout would tell what was done."""
    if args.dry_run and not args.out:
        outputs.check({"the files": STDOUT})


def _show_files(files: dict[str, int]) -> None:
    """The sizes in bytes of files by their names."""
    for name, size in files.items():
        show(f"{size:>9}  {name}")
    show(f"{sum(files.values()):>9}  bytes in {len(files)} files")


def _write(path: Path, text: str) -> None:
    if path == STDOUT:
        show(text.removesuffix("\n"))
    else:
        with outputs.replacing(path) as file:
            file.write(text)


if __name__ == "__main__":
    sys.exit(main())
