"""Weights in a folder, local or in the cache of the Hub: find, load, save. Loading is always strict.

A folder, and a Hub repository alike, holds `config.json` (what the networks are made of and how they are
fed), `model.safetensors` (both networks' tensors, under "keypoints." and "detector."), `metrics.json` (what
was measured, and the commands that trained), `README.md` (the model card, see `model_card`) with pictures in
`card/`, and perhaps `onnx/` (both networks as ONNX graphs, which `runtime` runs when they are of these
weights). Nothing is ever unpickled, and loading needs no torch.

The metadata of model.safetensors are `fkp_format`, `fkp_version` and `scheme` as in the config, and
`training_sha256` (see `training_hash`) where the training's commands are known.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, get_args, get_origin, get_type_hints

import numpy as np
import safetensors
import safetensors.numpy

from fkp import __version__, runtime, scheme
from fkp.config import Config, DetectorConfig, KeypointConfig
from fkp.hub import model_card, onnx_file
from fkp.hub.errors import WeightsError

if TYPE_CHECKING:
    from fkp.hub import download

CONFIG, WEIGHTS, METRICS, CARD = "config.json", "model.safetensors", "metrics.json", "README.md"

GRAPHS = {
    "keypoints": {"onnxruntime": "onnx/keypoints.onnx", "onnxruntime-int8": "onnx/keypoints.int8.onnx"},
    "detector": {"onnxruntime": "onnx/detector.onnx", "onnxruntime-int8": "onnx/detector.int8.onnx"},
}
"""The ONNX files of each network, by the backend that runs them."""

_GRAPHS = tuple(name for graphs in GRAPHS.values() for name in graphs.values())
_PICTURES = (model_card.POINTS_FIGURE, model_card.EXAMPLE)

FORMAT = 3
"""Version of the layout above: the one that is written and read."""

MAX_JSON, MAX_TENSORS = 20_000_000, 2_000_000_000
"""Bytes that config.json or metrics.json, and model.safetensors, may have."""

DTYPES = ("float16", "float32")
"""How floating tensors may be stored; networks in memory are float32."""

BUNDLED = Path(__file__).parents[1] / "weights"
"""The weights that come with the package."""

PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
"""Endings of files that may run any code when they are loaded, and so never are."""

_made_here: set[bytes] = set()
"""SHA-256 of the graphs that this process has made."""


@dataclass(frozen=True, eq=False)
class Weights:
    """Both networks as they are stored: their configs, and their tensors by name without the network's.

    `metrics` are those of metrics.json; `folder` is where the graphs lie, if there are any.
    """

    keypoints: KeypointConfig
    detector: DetectorConfig
    keypoint_tensors: Mapping[str, np.ndarray]
    detector_tensors: Mapping[str, np.ndarray]
    metrics: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    def files(self, network: str) -> runtime.NetworkFiles:
        """What `keypoints` or `detector` can be run from."""
        graphs = GRAPHS[network] if self.folder is not None else {}
        paths = {name: Path(self.folder or "", file) for name, file in graphs.items()}
        here = {name: path for name, path in paths.items() if path.is_file()}
        check = partial(self.check_graph, network)
        return runtime.NetworkFiles(
            self.digest(network), here, partial(self.module, network, decoded=True), check
        )

    def check_graph(self, network: str, backend: str, content: bytes) -> None:
        """Raise `onnx_file.OnnxError` for a graph of a network that need not compute what these weights do,
        `runtime.BackendError` where that cannot be known.

        The bundled ones do. Others have to be the bundled graph with other weights and constants, as
        `onnx_file` compares them, or to have been made in this process; of 8-bit integers only these and the
        bundled file itself are known to be that.
        """
        if self.folder == BUNDLED:
            return onnx_file.refuse_external_data(content)
        bundled = BUNDLED / GRAPHS[network][backend]
        if hashlib.sha256(content).digest() in _made_here or (
            bundled.is_file() and bundled.read_bytes() == content
        ):
            return onnx_file.refuse_external_data(content)
        if backend == "onnxruntime-int8":
            raise runtime.BackendError(
                f"an 8-bit graph cannot be compared with its weights, so that of {self.folder} runs in the "
                "process that made it only: choose onnxruntime"
            )
        own = load(BUNDLED)
        reference = onnx_file.read(bundled.read_bytes(), own._symbols(network))
        if not onnx_file.read(content, self._symbols(network)).agrees_with(reference):
            raise onnx_file.OnnxError("is not the graph that fkp makes of these weights")

    def _symbols(self, network: str) -> Any:
        """What arrays in a graph of a network may stand for, see `onnx_file.weights_and_constants`."""
        if network == "detector":
            return onnx_file.weights_and_constants(self.detector_tensors, {})
        config = self.keypoints
        offsets = np.array(config.annotation_offsets, np.float32) * (config.crop_size / config.margin)
        constants: dict[str, Any] = {
            "mean": config.mean,
            "std": config.std,
            "offsets": offsets,
            "temperatures": config.temperatures,
        }
        slope, intercept = config.visibility_calibration
        # Numbers that stand for many things stand for none of these.
        constants |= {
            name: [v] for name, v in (("slope", slope), ("intercept", intercept)) if v not in (0, 1)
        }
        return onnx_file.weights_and_constants(self.keypoint_tensors, constants)

    def digest(self, network: str) -> str:
        """That of a network's graphs, see `runtime.digest`."""
        if network == "keypoints":
            return runtime.digest(self.keypoint_tensors, asdict(self.keypoints))
        # How its output is read is not part of the network.
        return runtime.digest(self.detector_tensors, {})

    def module(self, network: str, *, decoded: bool = False) -> Any:
        """The torch module of a network, with these weights as float32; `decoded` for inference.

        Raises WeightsError where tensor and config do not fit each other, runtime.BackendError without torch.
        """
        try:
            import torch
        except ImportError:
            raise runtime.BackendError("torch is not installed: run 'pip install \"fkp[torch]\"'") from None
        from fkp.networks import face_net, keypoint_net, state

        try:
            if network == "detector":
                build: Any = partial(face_net.DetectorNetwork, self.detector)
                tensors = self.detector_tensors
            else:
                build, tensors = partial(keypoint_net.build, self.keypoints), self.keypoint_tensors
            with torch.device("meta"):  # shapes only: a config may ask for more memory than there is
                state.check(build(), tensors)
            module = build()
            state.load(module, tensors)
        except (state.StateError, ValueError, RuntimeError) as error:
            where = self.folder / WEIGHTS if self.folder else "the weights"
            raise WeightsError(f"{where} does not fit its {CONFIG}: {error}; get both files anew") from error
        module = module.eval()
        return keypoint_net.Decoded(module) if decoded and network == "keypoints" else module

    @classmethod
    def of(
        cls, keypoint_network: Any, detector_config: DetectorConfig, face_network: Any, **rest: Any
    ) -> Weights:
        """Those of two torch networks, floats rounded to float16."""
        from fkp.networks import state

        tensors = state.arrays(keypoint_network), state.arrays(face_network)
        return cls(keypoint_network.config, detector_config, *tensors, **rest)


# --- Folders ------------------------------------------------------------------------------------------------


def save(
    folder: str | Path,
    weights: Weights,
    *,
    repo_id: str = "OWNER/NAME",
    graphs: bool = True,
    pictures: Mapping[str, bytes] | None = None,
) -> None:
    """Write the files into a folder, which is made if need be; `load` gives the same back.

    The ONNX graphs are copied from the folder that the weights came from or, where they are other weights'
    than these, made in some seconds if the extra `fkp[export]` is installed; with `graphs` False there are
    none. `repo_id` is the name that the model card tells people to load, `pictures` those of
    `model_card.pictures`. Raises OSError as writing files does; a graph that cannot be made is a warning, for
    the model works without.
    """
    folder, metrics = Path(folder), weights.metrics
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"keypoints.{name}": array for name, array in weights.keypoint_tensors.items()}
    tensors |= {f"detector.{name}": array for name, array in weights.detector_tensors.items()}
    metadata = {
        "format": "pt",  # what other software looks for
        "fkp_format": str(FORMAT),
        "fkp_version": __version__,
        "scheme": scheme.NAME,
    }
    if trained := training_hash(metrics):
        metadata["training_sha256"] = trained
    content = safetensors.numpy.save({k: np.asarray(v, order="C") for k, v in tensors.items()}, metadata)
    # Not save_file, which makes a file that nobody else may read.
    (folder / WEIGHTS).write_bytes(_with_sorted_header(content))
    config = {
        "format": FORMAT,
        "fkp_version": __version__,
        "scheme": scheme.NAME,
        "keypoints": asdict(weights.keypoints),
        "detector": asdict(weights.detector),
        "dtype": _dtype(tensors.values()),
        "onnx": _write_graphs(folder, weights, graphs),
    }
    with _as_fkp_writes_them():
        for name, values in ((CONFIG, config), (METRICS, metrics)):
            text = json.dumps(values, indent=2, allow_nan=False) + "\n"
            (folder / name).write_text(text, encoding="utf-8")
    for name in _PICTURES:
        _write_or_remove(folder / name, (pictures or {}).get(name))
    parameters = {
        model_card.NETWORKS["keypoints"]: _count(weights.keypoint_tensors),
        model_card.NETWORKS["faces"]: _count(weights.detector_tensors),
    }
    sizes = {name: size for name, size in files(folder).items() if name == WEIGHTS or name in _GRAPHS}
    with _as_fkp_writes_them():
        held = model_card.Weights(config, metrics, parameters, sizes)
        (folder / CARD).write_text(model_card.text(held, repo_id, files(folder)), encoding="utf-8")


@contextlib.contextmanager
def _as_fkp_writes_them() -> Iterator[None]:
    """Metrics of somebody else may hold anything that JSON can, at any depth: errors of theirs are told."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{METRICS} of these weights is not of the form that fkp writes ({error!r})"
        ) from error


def _with_sorted_header(content: bytes) -> bytes:
    """The same safetensors file with its header sorted: the library's order of metadata changes each time."""
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # so that the tensors begin at a multiple of 8
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def training_hash(metrics: Mapping[str, Any]) -> str | None:
    """SHA-256, in hex, of the training commands that `metrics` tell of; None where they tell of none.

    It ties weights to the record of their making: `metrics["training"]` holds the command of each network, as
    `{"keypoints": {"command": …}, "faces": {"command": …}}`, hashed as JSON with sorted keys.
    """
    if not (training := metrics.get("training")):
        return None
    return hashlib.sha256(json.dumps(training, sort_keys=True).encode()).hexdigest()


def _dtype(tensors: Iterable[np.ndarray]) -> str:
    """The one of `DTYPES` that holds all floats of tensors."""
    kinds = {np.asarray(tensor).dtype.name for tensor in tensors}
    return "float32" if "float32" in kinds else "float16"


def _count(tensors: Mapping[str, np.ndarray]) -> int:
    """Numbers in tensors, but for the counters and running statistics of normalisations."""
    return sum(array.size for name, array in tensors.items() if "running_" not in name and array.ndim)


def _write_or_remove(path: Path, content: bytes | None) -> None:
    """Write a file in a folder of its own; where there is nothing to write, none is left."""
    if content is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not there, or something else is in it
        path.parent.rmdir()


def _write_graphs(folder: Path, weights: Weights, wanted: bool) -> bool:
    """Copy or make the graphs of the weights; whether there are any in the end."""
    for network, graphs in GRAPHS.items():
        there = {file: weights.folder / file for file in graphs.values()} if wanted and weights.folder else {}
        whole = all(_digest_of(path) == weights.digest(network) for path in there.values() if path.is_file())
        made = {file: path for file, path in there.items() if path.is_file()} if whole else {}
        for file, path in made.items():
            if path.resolve() != (folder / file).resolve():
                (folder / file).parent.mkdir(exist_ok=True)
                shutil.copyfile(path, folder / file)
        for file in graphs.values() - made.keys():
            _write_or_remove(folder / file, None)
        if wanted and graphs["onnxruntime"] not in made:
            _make_graphs(folder, weights, network)
    return any((folder / file).is_file() for file in _GRAPHS)


def _make_graphs(folder: Path, weights: Weights, network: str) -> None:
    """Make the graphs of a network, where that can be done here."""
    try:
        from fkp.networks import export
    except ImportError:  # no torch
        return
    if not export.is_possible():
        return
    path = folder / GRAPHS[network]["onnxruntime"]
    path.parent.mkdir(exist_ok=True)
    try:
        if network == "keypoints":
            export.write_onnx(weights.module(network), path, weights.digest(network))
            if weights.keypoints.activation_ranges:
                small = folder / GRAPHS[network]["onnxruntime-int8"]
                export.write_int8_onnx(weights.module(network), small, weights.digest(network))
        else:
            config = asdict(weights.detector)
            export.write_detector_onnx(weights.module(network), config, path, weights.digest(network))
            if weights.detector.activation_ranges:
                small = folder / GRAPHS[network]["onnxruntime-int8"]
                export.write_detector_int8_onnx(
                    weights.module(network), config, small, weights.digest(network)
                )
        for file in GRAPHS[network].values():
            if (folder / file).is_file():
                _made_here.add(hashlib.sha256((folder / file).read_bytes()).digest())
    except Exception as error:  # whatever the exporter of some version raises
        _write_or_remove(path, None)
        reason = str(error).strip().splitlines()[0]
        warnings.warn(f"no ONNX graphs were written to {folder}: {reason}", stacklevel=4)


def _digest_of(graph: Path) -> str | None:
    """The digest of the weights that a graph was made from, as it says itself; None if it is no graph."""
    # Its last entries are the metadata, each a key and a value of 64 letters: no parser is needed to find it.
    if graph.stat().st_size > runtime.MOST_BYTES:
        return None
    found = re.findall(rb"weights_sha256\x12\x40([0-9a-f]{64})", graph.read_bytes())
    return found[-1].decode() if found else None


def load(
    source: str | Path | None = None, revision: str | None = None, **hub_options: Unpack[download.Options]
) -> Weights:
    """The weights in the folder that `find` gives, without torch.

    Raises what `find` does, and WeightsError when a file is missing, damaged or of another format, when the
    config has an unknown key, or when a tensor belongs to neither network. Whether tensors fit the config is
    seen when a network is made ready to run.
    """
    folder = find(source, revision, **hub_options)
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLES)
    if pickles and not (folder / WEIGHTS).exists():
        raise WeightsError(f"{folder} holds {_refused_pickle(pickles[0])}")
    config = _read_config(folder / CONFIG)
    keypoint_config = _rebuild(KeypointConfig, config["keypoints"], folder / CONFIG)
    detector_config = _rebuild(DetectorConfig, config["detector"], folder / CONFIG)
    metadata, tensors = _read_tensors(folder / WEIGHTS)
    _check_metadata(metadata, config, folder / WEIGHTS)
    of: dict[str, dict[str, np.ndarray]] = {"keypoints": {}, "detector": {}}
    for name, tensor in tensors.items():
        network, _, rest = name.partition(".")
        if network not in of or not rest:
            raise WeightsError(f"{folder / WEIGHTS}: tensor {name} belongs to neither network")
        of[network][rest] = tensor
    metrics = _read_json(folder / METRICS) if (folder / METRICS).exists() else {}
    with _as_fkp_writes_them():
        told = training_hash(metrics)
    if (trained := metadata.get("training_sha256")) and told and trained != told:
        raise WeightsError(
            f"{folder / METRICS} tells of another training than that of {WEIGHTS}: get both files anew"
        )
    return Weights(keypoint_config, detector_config, of["keypoints"], of["detector"], metrics, folder)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        _check_file(path, MAX_JSON)
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        what = "this fkp has no weights" if path.parent == BUNDLED else "that is no folder of fkp weights"
        raise WeightsError(f"{path} does not exist: {what}") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is no JSON ({error}): get the file anew") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} is no JSON object: get the file anew")
    return content


def _check_file(path: Path, most: int) -> None:
    """Raise WeightsError for what is no file, as a pipe, which would hang, or is larger than any of fkp's."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise WeightsError(f"{path} is no file: get the file anew")
    if status.st_size > most:
        raise WeightsError(f"{path} has {status.st_size / 1e6:.0f} MB, where {most / 1e6:g} are the most")


def _read_config(path: Path) -> dict[str, Any]:
    config = _read_json(path)
    version = config.get("format")
    if not isinstance(version, int) or not {"scheme", "keypoints", "detector"} <= config.keys():
        raise WeightsError(f"{path} is no config of fkp: it needs format, scheme, keypoints and detector")
    if version != FORMAT:
        what = "upgrade with 'pip install -U fkp'" if version > FORMAT else "get newer weights"
        raise WeightsError(f"{path} has format {version}, this fkp reads format {FORMAT}: {what}")
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
        value = _tuples(value)
        if not _has_type(value, hints[key]):
            raise WeightsError(f"{path} has {value!r} for {key!r}, where {kinds[key]} is needed")
        arguments[key] = value
    try:
        return kind(**arguments)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error


def _tuples(value: Any) -> Any:
    """Tuples for the lists that JSON makes of them."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


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


def _read_tensors(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The metadata and the tensors of a safetensors file."""
    try:
        _check_file(path, MAX_TENSORS)
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError:
        raise WeightsError(f"{path} does not exist: that is no folder of fkp weights") from None
    except (OSError, safetensors.SafetensorError, TypeError) as error:  # TypeError: a type NumPy has not
        raise WeightsError(f"{path} is damaged or incomplete ({error}): get the file anew") from error
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise WeightsError(f"{path}: tensor {name} holds numbers that are not finite: get the file anew")
    return metadata, tensors


def _check_metadata(metadata: Mapping[str, str], config: Mapping[str, Any], path: Path) -> None:
    """Files of fkp before 0.1.0 lack some of it, or all."""
    if metadata.get("scheme", scheme.NAME) != scheme.NAME:
        raise WeightsError(f"{path} is for the scheme {metadata['scheme']!r}, fkp knows {scheme.NAME!r} only")
    if metadata.get("fkp_format", str(config["format"])) != str(config["format"]):
        raise WeightsError(
            f"{path} has format {metadata['fkp_format']}, {CONFIG} {config['format']}: get both files anew"
        )


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
    if hub_options:
        from fkp.hub import download

        download.check(hub_options)
    if source is not None and not isinstance(source, str | Path):
        raise WeightsError(f"weights are named by a folder or a Hub id, not by {type(source).__name__}")
    if source is None or (str(source) and os.path.isdir(source)):
        if revision is not None:
            what = source or "the bundled weights"
            raise WeightsError(f"revision {revision!r} goes with a Hub id, not with {what}")
        # Absolute, for graphs are read anew in processes to come, wherever those have gone.
        return BUNDLED if source is None else Path(source).absolute()
    if os.path.isfile(source):
        raise WeightsError(f"{source} is a file: name the folder that holds {CONFIG} and {WEIGHTS}")
    from fkp.hub import download  # huggingface_hub takes half a second to import

    if isinstance(source, Path) or not download.is_id(source):
        name = str(source) if len(str(source)) <= 200 else f"{str(source)[:200]}…"
        raise WeightsError(f"{name!r} is neither a folder here nor a Hub id of the form OWNER/NAME")
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
        has_graphs = _read_json(folder / CONFIG).get("onnx") is True
        graphs = [of_network["onnxruntime"] for of_network in GRAPHS.values()] if has_graphs else []
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
