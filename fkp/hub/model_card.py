"""The model card, README.md of a folder of weights: its figures come from metrics.json and config.json alone.

The text is fkp/hub/card/card.md. What was not measured, and what is not known of the weights, it says so.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from fkp import images, scheme
from fkp.faces import Faces

if TYPE_CHECKING:
    import huggingface_hub

POINTS_FIGURE, EXAMPLE = "card/points.png", "card/example.jpg"
"""Pictures of the card: the 68 points, and what the weights find in a picture."""

_OWN = Path(__file__).parent / "card"

TEXT = _OWN / "card.md"

PORTRAITS = _OWN / "portraits.jpg"
"""examples/four_faces.jpg of the project, smaller: made of two portraits that are in the public domain."""

POINTS = _OWN / "points.png"
"""The mean face with its points numbered; docs/points_figure.py draws it."""

LICENSE = "mit"

NETWORKS = {"keypoints": "keypoint network", "faces": "face detector"}
"""By what `train.py` calls them."""

TRAINING_DATA = {
    "keypoints": "YouTube Faces (frames and keypoints as in Udacity's course on computer vision), the "
    "training parts of 300-W (LFPW, HELEN, AFW) and AFLW with MERL-RAV's labels; larger networks gave points "
    "to faces that nobody had labelled, in these, in UTKFace and All-Age-Faces and in the photos below",
    "faces": "WIDER FACE, YouTube Faces, 300-W's training parts, AFLW, people with masks, and photos without "
    "a face; OpenCV's YuNet marked the faces that nobody had labelled, in these and in 12299 photos of "
    "public repositories on GitHub: Leeds Sports Pose Extended (axelcarlier/lsp), Clothing Co-Parsing "
    "(bearpaw/clothing-co-parsing, Apache 2.0), people with masks (ejdis/face-mask-dataset, MIT; "
    "jolignier/face-mask-dataset-ilc-2021), parts of Flickr8k, COCO and VOC (quantumnaan/sic_translator, "
    "lightly-ai/coco128_yolo, codewithminer/ImageCaptioning, ManaviAgrawal/VQA, zpf1452233/mAP, "
    "RlNZLER/Image-Text-Matching) and of ImageNet (EliSchwartz/imagenet-sample-images, under its terms), "
    "Saliency in Crowd and OSIE (NUS-VIP/saliency-in-crowd, NUS-VIP/predicting-human-gaze-beyond-pixels), "
    "streets (LS-chen/Pedestrian-behavior-detection-and-prediction), the samples of eight programs, and "
    "photos of events on 64 web sites of communities and conferences, named in fkp's LOG.md; where no terms "
    "are named, none are stated",
}
"""What `train.py` trains each network on."""


class Weights(NamedTuple):
    """What the card is about: the contents of config.json and metrics.json, the numbers of parameters by
    name of the network, and the sizes in bytes of files by name."""

    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    parameters: Mapping[str, int]
    sizes: Mapping[str, int]


def text(weights: Weights, repo_id: str, pictures: Container[str] = ()) -> str:
    """The card, whose code loads `repo_id`; of `POINTS_FIGURE` and `EXAMPLE` it shows what is there."""
    header = _header(weights.metrics, repo_id)
    weights = weights._replace(metrics=_as_text(weights.metrics))
    metrics = weights.metrics
    body = Template(TEXT.read_text(encoding="utf-8")).substitute(
        name=repo_id.split("/")[-1],
        repo_id=repo_id,
        example=_EXAMPLE if EXAMPLE in pictures else "",
        figure=_POINTS if POINTS_FIGURE in pictures else "",
        groups=_groups(),
        source=_source(),
        graphs=_graphs(weights),
        accuracy="\n\n".join(_accuracy(metrics)),
        limits="\n\n".join(_limits(metrics)),
        data="\n\n".join(_data(metrics)),
        size="\n\n".join(_size(weights)),
        version=weights.config["fkp_version"],
    )
    return f"---\n{header.to_yaml()}\n---\n\n{body}"


_EXAMPLE = f"""\
![What these weights find in four portraits]({EXAMPLE})

Found by these weights in portraits that are in the public domain (NASA; U.S. Navy).

"""
_POINTS = f"![The mean face with its points numbered]({POINTS_FIGURE})\n\n"


# --- Pictures -----------------------------------------------------------------------------------------------


def pictures(model: Callable[..., Faces]) -> dict[str, bytes]:
    """Both pictures by name; only the first if the model, called as `FaceKeypoints` is, finds no face."""
    found = example(model)
    return {POINTS_FIGURE: POINTS.read_bytes()} | ({} if found is None else {EXAMPLE: found})


def example(model: Callable[..., Faces]) -> bytes | None:
    """What a model finds in `PORTRAITS`, as JPEG; None if that is nothing."""
    picture = images.read(PORTRAITS)
    faces = model(picture, max_faces=4)
    if len(faces) == 0 or not np.isfinite(faces.keypoints).all():
        return None
    from fkp import draw  # which loading does not need

    out = io.BytesIO()
    Image.fromarray(draw.draw(picture, faces)).save(out, "jpeg", optimize=True)
    return out.getvalue()


# --- Sections -----------------------------------------------------------------------------------------------

WAYS = {
    "truth": ("true", ""),
    "detected": ("detected", ""),
    "own_style": ("true", "the set's own"),
    "own_detected": ("detected", "the set's own"),
}
"""By way of asking, as benchmarks/accuracy.py calls it: whose boxes, and the style if not the usual one."""


def _as_text(value: Any, key: str = "") -> Any:
    """Figures whose texts, which may be anybody's, are text in Markdown and end no code that they are in."""
    if isinstance(value, Mapping):
        return {name: _as_text(of, str(name)) for name, of in value.items()}
    if isinstance(value, list | tuple):
        return [_as_text(each, key) for each in value]
    if not isinstance(value, str):
        return value
    line = " ".join(value.split())
    if key in ("command", "label_style"):
        return line.replace("`", "'")
    return re.sub(r"([\\`*\[\]<>|!])", r"\\\1", line)


def _measured(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """Name and title of each test set, way of asking, and figures; the same ones twice are given once."""
    if not (accuracy := metrics.get("accuracy")):
        return
    by_set = next(iter(accuracy["figures"].values()))  # the weights' own; what is compared comes after
    for name, title in accuracy["sets"].items():
        given: list[Any] = []
        for way in WAYS:
            figures = by_set[name].get(way)
            if figures and figures not in given:
                given.append(figures)
                yield name, title, way, figures


def _header(metrics: Mapping[str, Any], repo_id: str) -> huggingface_hub.ModelCardData:
    import huggingface_hub  # half a second, which loading does not need

    results = [
        huggingface_hub.EvalResult(
            task_type="keypoint-detection",
            task_name="68 facial keypoints",
            dataset_type=name,
            dataset_name=title,
            dataset_config=way,
            dataset_args={"faces": figures["n"]},
            metric_type=key,
            metric_name=f"{called}, in percent, {_asked(way, metrics)}",
            metric_value=figures[key],
        )
        for name, title, way, figures in _measured(metrics)
        for key, called in (("nme", "NME of 68 points"), ("fr8", "FR@8"))
    ]
    return huggingface_hub.ModelCardData(
        library_name="fkp",
        license=LICENSE,
        pipeline_tag="keypoint-detection",
        tags=["face-landmarks", "facial-keypoints", "face-alignment", "face-detection"],
        model_name=repo_id.split("/")[-1] if results else None,
        eval_results=results or None,
    )


def _asked(way: str, metrics: Mapping[str, Any]) -> str:
    boxes, style = WAYS[way]
    return f"{boxes} boxes, style {style or metrics['accuracy']['label_style']}"


def _groups() -> str:
    rows = [[name.replace("_", " "), f"{group[0]}–{group[-1]}"] for name, group in scheme.GROUPS.items()]
    return _table(["part", "points"], rows)


def _source() -> str:
    """The link to the source, where the installed package tells its address."""
    from importlib import metadata  # brings a parser of e-mails, which loading does not need

    with contextlib.suppress(metadata.PackageNotFoundError):
        for url in metadata.metadata("fkp").get_all("Project-URL") or ():
            name, _, address = url.partition(", ")
            if name == "Source":
                return f"[Source and documentation]({address}) · "
    return ""


def _graphs(weights: Weights) -> str:
    """How to feed the ONNX files; nothing where there are none."""
    if not any(name.endswith(".onnx") for name in weights.sizes):
        return ""
    keypoints = weights.config["keypoints"]
    page = Template((_OWN / "onnx.md").read_text(encoding="utf-8"))
    return page.substitute(size=keypoints["crop_size"], margin=f"{keypoints['margin']:g}")


def _accuracy(metrics: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        [title, WAYS[way][0], WAYS[way][1] or f"`{metrics['accuracy']['label_style']}`", str(of["n"]),
         str(of["missed"]), *(_number(of[key]) for key in ("nme", "nme_inner", "fr8", "auc8"))]
        for _, title, way, of in _measured(metrics)
    ]  # fmt: skip
    if rows:
        yield _DEFINITIONS
        head = ["faces", "boxes", "style", "n", "missed", "NME 68", "NME inner 51", "FR@8", "AUC@8"]
        yield _table(head, rows, texts=3)
        yield f"Made by `{metrics['accuracy']['command']}`."
    if found := metrics.get("detection"):
        yield from _detection(found)
    validation = metrics.get("validation")
    if not rows and validation:
        yield _VALIDATION
        each = ((what, name, value) for what, of in validation.items() for name, value in of.items())
        cells = [[NETWORKS.get(what, what), name, _number(value, 3)] for what, name, value in each]
        yield _table(["network", "figure", "value"], cells, texts=2)
    if not (rows or found or validation):
        yield "These weights came without figures: how good they are was not measured."


_DEFINITIONS = """\
NME is the mean distance of the points from the labels, in percent of the distance between the outer eye
corners; the inner 51 points are those without the jaw. FR@8 is the share of faces with an NME over 8, AUC@8
the area under the error curve up to 8, both in percent; a missed face counts as a failure. True boxes are the
tight boxes of the labels. The name of each set says whether its people occur in training: where they do, it
tells little about new people."""

_VALIDATION = """\
Measured at the end of training only, on people and photos held out of it, on which thresholds and the scale
of the scores were fitted as well:"""


def _detection(found: Mapping[str, Any]) -> Iterator[str]:
    sets = found["sets"]
    yield (
        f"The face detector at its threshold of {found['min_score']:g}. Found means an IoU of 0.5 with the "
        "tight box of the labels (WIDER FACE: 0.4 with its boxes, mapped); in percent."
    )
    rows = [[of["title"], str(of["faces"]), _number(of["found"])] for of in sets.values() if of["faces"]]
    yield _table(["faces", "n", "found"], rows)
    false = [f"{of['false']} on {of['photos']} {of['title']}" for of in sets.values() if not of["faces"]]
    yield f"False boxes: {'; '.join(false) or 'not counted'}. Made by `{found['command']}`."


SIZES = ("12 to 20 px", "20 to 32 px", "32 to 64 px", "over 64 px")
"""What benchmarks/detection.py groups faces by."""

CONDITIONS = {
    "none": ("as they are", ""),
    "size": ("made small: longer side of the face", "{:g} px"),
    "turn": ("turned in the plane", "{:g}°"),
    "blur": ("blurred: σ of the distance between the eyes", "{:g} %"),
    "dark": ("darkened: light that is left", "{:g} %"),
    "jpeg": ("JPEG quality", "{:g}"),
}
"""What is shown of benchmarks/robustness.py, and its level in words."""

GROUPS = {"yaw": ("turned to a side", "°"), "side": ("side of the face's box", " px")}


def _limits(metrics: Mapping[str, Any]) -> Iterator[str]:
    accuracy = metrics.get("accuracy", {})
    head = ["faces", "how much", "n", "NME 68", "FR@8", "mean score"]
    keys = ("nme", "fr8", "score")

    changed = [row for row in accuracy.get("robustness", []) if row["n"]]
    rows = [
        [title + ("" if row["passes"] == 1 else f", `passes={row['passes']!r}`"),
         level.format(row["level"]), str(row["n"]), *(_number(row[key]) for key in keys)]
        for name, (title, level) in CONDITIONS.items()
        for row in changed if row["condition"] == name
    ]  # fmt: skip
    if rows:
        yield "What makes it worse, measured on 300-W (LFPW test) with true boxes:"
        yield _table(head, rows, texts=2)

    groups = [row for row in accuracy.get("weak", []) if row["n"]]
    rows = [
        [
            title,
            f"{row['from']:g} to {row['to']:g}{unit}",
            str(row["n"]),
            *(_number(row[key]) for key in keys),
        ]
        for name, (title, unit) in GROUPS.items()
        for row in groups
        if row["by"] == name
    ]
    if rows:
        yield "By the pose and size that faces have in the test split of YouTube Faces:"
        yield _table(head, rows, texts=2)

    own = [row for row in metrics.get("detection", {}).get("wider", []) if row["allowed"] is None]
    found = [[size, _number(share)] for row in own for size, share in zip(SIZES, row["sizes"], strict=True)]
    if found:
        yield "Faces that the detector finds in photos of WIDER FACE, by their size, in percent:"
        yield _table(["side of the face's box", "found"], found)
    if not (changed or groups or found):
        yield "How size, pose and blur change what these weights do was not measured."


def learnt_from(trained: Container[str]) -> dict[str, str]:
    """What the networks of `NETWORKS` learnt from that were `trained` as recorded: a sentence each."""
    known = {what: title for what, title in NETWORKS.items() if what in trained}
    return {what: f"The {title} learnt from {TRAINING_DATA[what]}." for what, title in known.items()}


def _data(metrics: Mapping[str, Any]) -> Iterator[str]:
    trained = metrics.get("training", {})
    told = learnt_from(trained)
    for what, sentence in told.items():
        yield sentence
        commands = trained[what]["command"].replace(" && ", "\n")
        yield "<details><summary>Its training, as commands</summary>"
        yield f"```sh\n{commands}\n```"
        yield "</details>"
    unknown = [f"the {title}" for what, title in NETWORKS.items() if what not in told]
    if unknown:
        yield f"What {' and '.join(unknown)} learnt from is not recorded with these weights."


def _size(weights: Weights) -> Iterator[str]:
    rows = [[title, f"{count / 1e6:.2f} million"] for title, count in weights.parameters.items()]
    yield _table(["network", "parameters"], rows)
    yield _table(["file", "size"], [[f"`{name}`", in_words(size)] for name, size in weights.sizes.items()])
    speed = weights.metrics.get("speed")
    if not speed:
        yield "How fast these weights run was not measured."
        return
    tasks = {
        "keypoints 1": "keypoints of one face at a known box",
        "detector": "face detector, 640×480",
        "predict 640x480": f"whole picture, 640×480, {speed['faces']['640x480']} faces",
    }
    rows = [
        [title, row["backend"], _number(row["ms"])]
        for task, title in tasks.items()
        for row in speed["rows"]
        if (row["task"], row["threads"]) == (task, 1)
    ]
    yield _table(["one thread", "by", "ms"], rows, texts=2)
    machine = ", ".join([speed["machine"]["cpu"], *speed["machine"]["instructions"]])
    versions = ", ".join(f"{name} {version}" for name, version in speed["versions"].items())
    yield f"{machine}; {versions}. Medians; made by `{speed['command']}`."


# --- Words --------------------------------------------------------------------------------------------------


def in_words(size: int) -> str:
    """A number of bytes for people: `2.31 MB`."""
    if size < 1000:
        return f"{size} bytes"
    return f"{size / 1e3:.1f} kB" if size < 1e6 else f"{size / 1e6:.2f} MB"


def _number(value: float | None, digits: int = 2) -> str:
    """A rounded number, or a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """Markdown: the first `texts` columns to the left, numbers to the right."""
    lines = [head, ["---"] * texts + ["--:"] * (len(head) - texts), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
