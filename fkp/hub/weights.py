"""Weights in a folder, local or in the cache of the Hub: find, load, save. Loading is always strict.

A folder, and a Hub repository alike, holds `config.json` (what the networks are made of and how they are
fed), `model.safetensors` (both networks' tensors, under "keypoints." and "detector."), `metrics.json` (what
was measured, and the commands that trained), `README.md` (the model card, see `card`) with pictures in
`card/`, and perhaps `onnx/` (both networks as ONNX graphs, which `runtime` runs when they are of these
weights). Nothing is ever unpickled.

The metadata of model.safetensors are `fkp_format`, `fkp_version` and `scheme` as in the config, and
`training_sha256` (see `training_hash`) where the training's commands are known.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, Unpack, get_args, get_origin, get_type_hints

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from fkp import __version__, detector, scheme
from fkp.hub import download, model_card
from fkp.hub.download import WeightsError
from fkp.networks import export, keypoint_net

CONFIG, WEIGHTS, METRICS, CARD = "config.json", "model.safetensors", "metrics.json", "README.md"

KEYPOINTS_GRAPH, DETECTOR_GRAPH = "onnx/keypoints.onnx", "onnx/detector.onnx"

_GRAPHS = (KEYPOINTS_GRAPH, DETECTOR_GRAPH)
_PICTURES = (model_card.POINTS_FIGURE, model_card.EXAMPLE)

FORMAT = 2
"""Version of the layout above that is written; this one and older ones can be read.

1 held tensors as float32 and no graphs; its config has neither "dtype" nor "onnx".
"""

DTYPES = ("float16", "float32")
"""How floating tensors may be stored; networks in memory are float32."""

BUNDLED = Path(__file__).parents[1] / "weights"
"""The weights that come with the package."""

PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
"""Endings of files that may run any code when they are loaded, and so never are."""

Config = TypeVar("Config", keypoint_net.KeypointConfig, detector.DetectorConfig)


class Stored(NamedTuple):
    """What a folder of weights holds; `keypoints_graph` is the file, the detector knows its own."""

    keypoint_network: keypoint_net.KeypointNetwork
    face_detector: detector.Detector
    metrics: dict[str, Any]
    keypoints_graph: Path | None


# --- Folders ------------------------------------------------------------------------------------------------


def save(
    folder: str | Path,
    keypoint_network: keypoint_net.KeypointNetwork,
    face_detector: detector.Detector,
    metrics: dict[str, Any] | None = None,
    *,
    repo_id: str = "OWNER/NAME",
    graphs: bool = True,
    pictures: Mapping[str, bytes] | None = None,
) -> None:
    """Write the files into a folder, which is made if need be; `load` gives the same back.

    Floating tensors are rounded to float16, in the file only. The ONNX graphs are written, in some seconds,
    where onnx and onnxscript are installed and `graphs` is not False; otherwise older ones are taken away.
    `repo_id` is the name that the model card tells people to load, `pictures` those of `model_card.pictures`.
    Raises OSError as writing files does; a graph that cannot be made is a warning, for the model works
    without.
    """
    folder, metrics = Path(folder), metrics or {}
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: _rounded(tensor.detach().cpu()).clone(memory_format=torch.contiguous_format)
        for name, tensor in _both(keypoint_network, face_detector).state_dict().items()
    }
    metadata = {
        "format": "pt",  # what other software looks for
        "fkp_format": str(FORMAT),
        "fkp_version": __version__,
        "scheme": scheme.NAME,
    }
    if trained := training_hash(metrics):
        metadata["training_sha256"] = trained
    # Not save_file, which makes a file that nobody else may read.
    (folder / WEIGHTS).write_bytes(safetensors.torch.save(tensors, metadata))
    config = {
        "format": FORMAT,
        "fkp_version": __version__,
        "scheme": scheme.NAME,
        "keypoints": asdict(keypoint_network.config),
        "detector": asdict(face_detector.config),
        "dtype": "float16",
        "onnx": _write_graphs(folder, keypoint_network, face_detector, tensors, graphs),
    }
    for name, content in ((CONFIG, config), (METRICS, metrics)):
        (folder / name).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    for name in _PICTURES:
        _write_or_remove(folder / name, (pictures or {}).get(name))
    parameters = {
        model_card.NETWORKS["keypoints"]: _count(keypoint_network),
        model_card.NETWORKS["faces"]: _count(face_detector.network),
    }
    sizes = {name: size for name, size in files(folder).items() if name == WEIGHTS or name in _GRAPHS}
    text = model_card.text(model_card.Weights(config, metrics, parameters, sizes), repo_id, files(folder))
    (folder / CARD).write_text(text, encoding="utf-8")


def training_hash(metrics: Mapping[str, Any]) -> str | None:
    """SHA-256, in hex, of the training commands that `metrics` tell of; None where they tell of none.

    It ties weights to the record of their making: `metrics["training"]` holds the command of each network, as
    `{"keypoints": {"command": …}, "faces": {"command": …}}`, hashed as JSON with sorted keys.
    """
    if not (training := metrics.get("training")):
        return None
    return hashlib.sha256(json.dumps(training, sort_keys=True).encode()).hexdigest()


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _write_or_remove(path: Path, content: bytes | None) -> None:
    """Write a file in a folder of its own; where there is nothing to write, none is left."""
    if content is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not there, or something else is in it
        path.parent.rmdir()


def _rounded(tensor: Tensor) -> Tensor:
    """The tensor as float16, unless it holds no floats, or one that is too large for that."""
    if not tensor.is_floating_point():
        return tensor
    rounded = tensor.to(torch.float16)
    return rounded if bool((rounded.isfinite() == tensor.isfinite()).all()) else tensor.float()


def _write_graphs(
    folder: Path,
    keypoint_network: keypoint_net.KeypointNetwork,
    face_detector: detector.Detector,
    tensors: dict[str, Tensor],
    wanted: bool,
) -> bool:
    """Write the graphs of the networks with the tensors as stored; whether there are any in the end."""
    keypoints, faces = folder / KEYPOINTS_GRAPH, folder / DETECTOR_GRAPH
    if wanted and export.is_possible():
        # On copies, with the weights that will be loaded.
        keypoint_network = copy.deepcopy(keypoint_network).cpu().float()
        faces_network = copy.deepcopy(face_detector.network).cpu().float()
        face_detector = detector.Detector(face_detector.config, faces_network)
        _both(keypoint_network, face_detector).load_state_dict(tensors)
        keypoints.parent.mkdir(exist_ok=True)
        try:
            export.write_onnx(keypoint_network, keypoints)
            export.write_detector_onnx(face_detector, faces)
            return True
        except Exception as error:  # whatever the exporter of some version raises
            warnings.warn(
                f"no ONNX graphs were written to {folder}: {download.first_line(error)}", stacklevel=3
            )
    for graph in (keypoints, faces):
        _write_or_remove(graph, None)
    return False


def load(folder: str | Path) -> Stored:
    """Both networks and the metrics of a folder.

    The networks are float32, however they are stored. Raises WeightsError when a file is missing, damaged or
    from a newer fkp, when the config has an unknown key, or when a tensor is missing, extra or misshapen.
    """
    folder = Path(folder)
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLES)
    if pickles and not (folder / WEIGHTS).exists():
        raise WeightsError(f"{folder} holds {_refused_pickle(pickles[0])}")
    config = _read_config(folder / CONFIG)
    keypoint_config = _rebuild(keypoint_net.KeypointConfig, config["keypoints"], folder / CONFIG)
    detector_config = _rebuild(detector.DetectorConfig, config["detector"], folder / CONFIG)
    try:
        keypoint_network = keypoint_net.build(keypoint_config)
        graph = folder / DETECTOR_GRAPH
        face_detector = detector.Detector(detector_config, graph=graph if graph.is_file() else None)
    except Exception as error:  # whatever impossible sizes lead to
        raise WeightsError(f"{folder / CONFIG} describes networks that cannot be built: {error}") from error
    both = _both(keypoint_network, face_detector)
    metadata, tensors = _read_tensors(folder / WEIGHTS)
    _check_metadata(metadata, config, folder / WEIGHTS)
    _check_fit(tensors, both.state_dict(), folder / WEIGHTS)
    both.load_state_dict(tensors)
    metrics = _read_json(folder / METRICS) if (folder / METRICS).exists() else {}
    if (trained := metadata.get("training_sha256")) and (told := training_hash(metrics)) and trained != told:
        raise WeightsError(
            f"{folder / METRICS} tells of another training than that of {WEIGHTS}: get both files anew"
        )
    graph = folder / KEYPOINTS_GRAPH
    return Stored(keypoint_network.eval(), face_detector, metrics, graph if graph.is_file() else None)


def copy_mean_weights(sources: dict[str, nn.Module], target: nn.Module) -> None:
    """All tensors of a network, or the mean of several (model soups, https://arxiv.org/abs/2203.05482).

    `sources` are networks by the name that WeightsError is to call them by when a tensor of theirs is
    missing, extra or misshapen.
    """
    states = {name: source.state_dict() for name, source in sources.items()}
    for name, tensors in states.items():
        problems = _misfits(tensors, target.state_dict())
        if problems:
            raise WeightsError(f"{name} holds a network of another shape: {problems}")
    mean = {}
    for key, tensor in target.state_dict().items():
        all_of_it = torch.stack([tensors[key].to(tensor.device) for tensors in states.values()])
        mean[key] = all_of_it.mean(dim=0) if tensor.is_floating_point() else all_of_it[0]
    target.load_state_dict(mean)


def _both(keypoint_network: keypoint_net.KeypointNetwork, face_detector: detector.Detector) -> nn.Module:
    """Both networks as one, whose names of tensors are those in the file."""
    return nn.ModuleDict({"keypoints": keypoint_network, "detector": face_detector.network})


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        what = "this fkp has no weights" if path.parent == BUNDLED else "that is no folder of fkp weights"
        raise WeightsError(f"{path} does not exist: {what}") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise WeightsError(f"{path} is no JSON ({error}): get the file anew") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} is no JSON object: get the file anew")
    return content


def _read_config(path: Path) -> dict[str, Any]:
    config = _read_json(path)
    version = config.get("format")
    if not isinstance(version, int) or not {"scheme", "keypoints", "detector"} <= config.keys():
        raise WeightsError(f"{path} is no config of fkp: it needs format, scheme, keypoints and detector")
    if version > FORMAT:
        raise WeightsError(
            f"{path} has format {version}, this fkp reads up to {FORMAT}: upgrade with 'pip install -U fkp'"
        )
    unknown = config.keys() - {"format", "fkp_version", "scheme", "keypoints", "detector", "dtype", "onnx"}
    if unknown:
        raise WeightsError(f"{path} has the unknown key {min(unknown)!r}: take it out, or upgrade fkp")
    if config["scheme"] != scheme.NAME:
        raise WeightsError(f"{path} is for the scheme {config['scheme']!r}, fkp knows {scheme.NAME!r} only")
    dtype = config.get("dtype", "float32")
    if dtype not in DTYPES:
        raise WeightsError(f"{path} has the dtype {dtype!r}, fkp knows {' and '.join(DTYPES)} only")
    return config


def _rebuild(kind: type[Config], values: Any, path: Path) -> Config:
    """The config dataclass from its JSON; what is not in it keeps its default, as written by an older fkp."""
    if not isinstance(values, dict):
        raise WeightsError(f"{path} has no JSON object where a {kind.__name__} should be")
    kinds, hints = {field.name: field.type for field in fields(kind)}, get_type_hints(kind)
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in kinds:
            raise WeightsError(f"{path} has the unknown key {key!r} for {kind.__name__}: upgrade fkp")
        value = tuple(value) if isinstance(value, list) else value  # JSON has no tuples
        if not _has_type(value, hints[key]):
            raise WeightsError(f"{path} has {value!r} for {key!r}, where {kinds[key]} is needed")
        arguments[key] = value
    return kind(**arguments)


def _has_type(value: Any, hint: Any) -> bool:
    """Whether a value is of a type such as int, float, str, tuple[int, ...] or tuple[int, int]."""
    if get_origin(hint) is not tuple:
        allowed = (int, float) if hint is float else hint
        return isinstance(value, allowed) and (hint is bool or not isinstance(value, bool))
    kinds = get_args(hint)
    if not isinstance(value, tuple):
        return False
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    return len(kinds) == len(value) and all(map(_has_type, value, kinds))


def _read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors of a safetensors file."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError:
        raise WeightsError(f"{path} does not exist: that is no folder of fkp weights") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path} is damaged or incomplete ({error}): get the file anew") from error


def _check_metadata(metadata: Mapping[str, str], config: Mapping[str, Any], path: Path) -> None:
    """Files of fkp before 0.1.0 lack some of it, or all."""
    if metadata.get("scheme", scheme.NAME) != scheme.NAME:
        raise WeightsError(f"{path} is for the scheme {metadata['scheme']!r}, fkp knows {scheme.NAME!r} only")
    if metadata.get("fkp_format", str(config["format"])) != str(config["format"]):
        raise WeightsError(
            f"{path} has format {metadata['fkp_format']}, {CONFIG} {config['format']}: get both files anew"
        )


def _check_fit(tensors: dict[str, Tensor], needed: dict[str, Tensor], path: Path) -> None:
    problems = _misfits(tensors, needed)
    if problems:
        raise WeightsError(f"{path} does not fit its {CONFIG}: {problems}; get both files anew")


def _misfits(tensors: dict[str, Tensor], needed: dict[str, Tensor]) -> str:
    """The first thing, in words, that keeps tensors from being loaded where others are needed; or nothing."""
    problems = [f"tensor {name} is missing" for name in needed if name not in tensors]
    problems += [f"tensor {name} belongs to neither network" for name in tensors if name not in needed]
    problems += [
        f"tensor {name} has shape {tuple(tensors[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in needed.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    problems += [
        f"tensor {name} is of type {tensors[name].dtype}"
        for name, tensor in needed.items()
        if name in tensors and tensors[name].is_floating_point() != tensor.is_floating_point()
    ]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return problems[0] + more if problems else ""


# --- The Hub ------------------------------------------------------------------------------------------------


def find(
    source: str | Path | None = None, revision: str | None = None, **hub_options: Unpack[download.Options]
) -> Path:
    """The folder of `source`: None for the bundled weights, a folder, or a Hub id "owner/name".

    A Hub id is downloaded into the local cache, at `revision` (commit, branch or tag; the default branch if
    None). A commit that is in the cache needs no request; without a network, or with `local_files_only=True`,
    the cache must have it, and what it has is used with a warning where that need not be the newest.
    Raises WeightsError when it is none of these or cannot be had, TypeError for an unknown option.
    """
    download.check(hub_options)
    if source is None or (str(source) and Path(source).is_dir()):
        if revision is not None:
            what = source or "the bundled weights"
            raise WeightsError(f"revision {revision!r} goes with a Hub id, not with {what}")
        return BUNDLED if source is None else Path(source)
    if Path(source).is_file():
        raise WeightsError(f"{source} is a file: name the folder that holds {CONFIG} and {WEIGHTS}")
    if isinstance(source, Path) or not download.is_id(source):
        raise WeightsError(f"{str(source)!r} is neither a folder here nor a Hub id of the form OWNER/NAME")
    return download.snapshot(
        source, revision, (CONFIG, WEIGHTS), (METRICS, *_GRAPHS), is_complete=_is_complete, lacking=_lacking,
        absent="is neither a folder here nor in the local cache", **hub_options,
    )  # fmt: skip


def files(folder: str | Path) -> dict[str, int]:
    """What of a folder belongs on the Hub: names and sizes in bytes."""
    folder = Path(folder)
    names = (CARD, CONFIG, METRICS, WEIGHTS, *_GRAPHS, *_PICTURES)
    return {name: (folder / name).stat().st_size for name in names if (folder / name).is_file()}


def _is_complete(folder: Path) -> bool:
    """Whether a snapshot has all that weights of fkp have; its config says whether there are graphs."""
    with contextlib.suppress(WeightsError):
        graphs = _GRAPHS if _read_json(folder / CONFIG).get("onnx") is True else ()
        return all((folder / name).is_file() for name in (METRICS, *graphs))
    return False


def _lacking(names: Sequence[str]) -> str:
    """In words, what a repository of these files has instead of weights."""
    pickles = sorted(name for name in names if name.endswith(PICKLES))
    if pickles and WEIGHTS not in names:
        return _refused_pickle(pickles[0])
    return f"no fkp weights: {CONFIG} and {WEIGHTS} are needed"


def _refused_pickle(name: str) -> str:
    return (
        f"{name} but no {WEIGHTS}: that may run any code when it is loaded, so fkp never does; ask for "
        f"{CONFIG} and {WEIGHTS} as 'fkp push' uploads them"
    )
