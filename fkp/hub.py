"""Weights in a folder and on the Hugging Face Hub: find, load, save, push. Loading is always strict.

A folder, and a Hub repository alike, holds `config.json` (what the networks are made of and how they are
fed), `model.safetensors` (both networks' tensors, under "keypoints." and "detector."), `metrics.json` (what
was measured), `README.md` (the model card) and perhaps `onnx/` (both networks as ONNX graphs, which `runtime`
runs when they are of these weights). Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import re
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import huggingface_hub
import safetensors
import safetensors.torch
import torch
from huggingface_hub import constants, errors
from torch import Tensor, nn

from fkp import __version__, detector, export, network, scheme

CONFIG, WEIGHTS, METRICS, CARD = "config.json", "model.safetensors", "metrics.json", "README.md"

KEYPOINTS_GRAPH, DETECTOR_GRAPH = "onnx/keypoints.onnx", "onnx/detector.onnx"

FORMAT = 2
"""Version of the layout above that is written; this one and older ones can be read.

1 held tensors as float32 and no graphs; its config has neither "dtype" nor "onnx".
"""

DTYPES = ("float16", "float32")
"""How floating tensors may be stored; networks in memory are float32."""

BUNDLED = Path(__file__).parent / "weights"
"""The weights that come with the package."""

PATIENCE = 2.5
"""Seconds that the Hub's first answer may take; without a network huggingface_hub itself tries for 23."""

_REPO_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
_COMMIT = re.compile("[0-9a-f]{40}")

Config = TypeVar("Config", network.KeypointConfig, detector.DetectorConfig)


class WeightsError(RuntimeError):
    """Weights that cannot be had, do not fit or cannot be pushed: one sentence, and what to do."""


class Stored(NamedTuple):
    """What a folder of weights holds; `keypoints_graph` is the file, the detector knows its own."""

    keypoint_network: network.KeypointNetwork
    face_detector: detector.Detector
    metrics: dict[str, Any]
    keypoints_graph: Path | None


# --- Folders ------------------------------------------------------------------------------------------------


def save(
    folder: str | Path,
    keypoint_network: network.KeypointNetwork,
    face_detector: detector.Detector,
    metrics: dict[str, Any] | None = None,
    *,
    repo_id: str = "OWNER/NAME",
    graphs: bool = True,
) -> None:
    """Write the files into a folder, which is made if need be; `load` gives the same back.

    Floating tensors are rounded to float16, in the file only. The ONNX graphs are written, in some seconds,
    where onnx and onnxscript are installed and `graphs` is not False; otherwise older ones are taken away.
    `repo_id` is the name that the model card tells people to load. Raises OSError as writing files does; a
    graph that cannot be made is a warning, for the model works without.
    """
    folder, metrics = Path(folder), metrics or {}
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: _rounded(tensor.detach().cpu()).clone(memory_format=torch.contiguous_format)
        for name, tensor in _both(keypoint_network, face_detector).state_dict().items()
    }
    metadata = {"format": "pt", "scheme": scheme.NAME, "fkp_version": __version__}
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
    (folder / CARD).write_text(card(keypoint_network, face_detector, metrics, repo_id), encoding="utf-8")


def _rounded(tensor: Tensor) -> Tensor:
    """The tensor as float16, unless it holds no floats, or one that is too large for that."""
    if not tensor.is_floating_point():
        return tensor
    rounded = tensor.to(torch.float16)
    return rounded if bool((rounded.isfinite() == tensor.isfinite()).all()) else tensor.float()


def _write_graphs(
    folder: Path,
    keypoint_network: network.KeypointNetwork,
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
            warnings.warn(f"no ONNX graphs were written to {folder}: {_first_line(error)}", stacklevel=3)
    keypoints.unlink(missing_ok=True)
    faces.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not there, or something of the user's is in it
        keypoints.parent.rmdir()
    return False


def load(folder: str | Path) -> Stored:
    """Both networks and the metrics of a folder.

    The networks are float32, however they are stored. Raises WeightsError when a file is missing, damaged or
    from a newer fkp, when the config has an unknown key, or when a tensor is missing, extra or misshapen.
    """
    folder = Path(folder)
    config = _read_config(folder / CONFIG)
    keypoint_config = _rebuild(network.KeypointConfig, config["keypoints"], folder / CONFIG)
    detector_config = _rebuild(detector.DetectorConfig, config["detector"], folder / CONFIG)
    try:
        keypoint_network = network.build(keypoint_config)
        graph = folder / DETECTOR_GRAPH
        face_detector = detector.Detector(detector_config, graph=graph if graph.is_file() else None)
    except Exception as error:  # whatever impossible sizes lead to
        raise WeightsError(f"{folder / CONFIG} describes networks that cannot be built: {error}") from error
    both = _both(keypoint_network, face_detector)
    tensors = _read_tensors(folder / WEIGHTS)
    _check_fit(tensors, both.state_dict(), folder / WEIGHTS)
    both.load_state_dict(tensors)
    metrics = _read_json(folder / METRICS) if (folder / METRICS).exists() else {}
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


def _both(keypoint_network: network.KeypointNetwork, face_detector: detector.Detector) -> nn.Module:
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


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise WeightsError(f"{path} does not exist: that is no folder of fkp weights") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path} is damaged or incomplete ({error}): get the file anew") from error


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


def find(source: str | Path | None = None, revision: str | None = None, **hub_options: Any) -> Path:
    """The folder of `source`: None for the bundled weights, a folder, or a Hub id "owner/name".

    A Hub id is downloaded into the local cache, at `revision` (commit, branch or tag; the default branch if
    None); with no network, or `local_files_only=True`, the cache must have it. A commit that is in the cache
    needs no request. `hub_options` are those of `huggingface_hub.hf_hub_download`.
    Raises WeightsError when it is none of these or cannot be had.
    """
    if source is None or (str(source) and Path(source).is_dir()):
        if revision is not None:
            what = source or "the bundled weights"
            raise WeightsError(f"revision {revision!r} goes with a Hub id, not with {what}")
        return BUNDLED if source is None else Path(source)
    if isinstance(source, Path) or not _REPO_ID.fullmatch(source):
        raise WeightsError(f"{str(source)!r} is neither a folder here nor a Hub id of the form OWNER/NAME")
    lacking = f"no fkp weights: {CONFIG} and {WEIGHTS} are needed"
    return _download(source, revision, _snapshot, CONFIG, lacking, **hub_options)


def fetch_file(repo_id: str, name: str, commit: str, **hub_options: Any) -> Path:
    """One file of any Hub repository at a commit (40 hex digits), from the local cache where it is in there.

    `hub_options` and errors are those of `find`.
    """

    def fetch(repo_id: str, revision: str | None, commit: str | None, **options: Any) -> Path:
        return Path(huggingface_hub.hf_hub_download(repo_id, name, revision=commit, **options))

    return _download(repo_id, commit, fetch, name, f"no {name}", **hub_options)


def push(
    repo_id: str,
    keypoint_network: network.KeypointNetwork,
    face_detector: detector.Detector,
    metrics: dict[str, Any] | None = None,
    *,
    private: bool = False,
    token: str | None = None,
    commit_message: str = "Upload fkp weights",
) -> str:
    """Upload what `save` writes to the Hub repository "owner/name", made if need be, as one commit; its URL.

    `token` is that of `hf auth login` if None. Raises WeightsError when the Hub refuses or cannot be reached.
    """
    if not _REPO_ID.fullmatch(repo_id):
        raise WeightsError(f"{repo_id!r} is no Hub id of the form OWNER/NAME")
    try:
        api = huggingface_hub.HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            save(folder, keypoint_network, face_detector, metrics, repo_id=repo_id)
            return api.upload_folder(
                repo_id=repo_id, folder_path=folder, commit_message=commit_message
            ).commit_url
    except errors.HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise WeightsError(
                f"the Hub does not let you write {repo_id}: run 'hf auth login' with a token that may write"
            ) from error
        raise WeightsError(f"{repo_id} could not be pushed: {_first_line(error)}") from error
    except (errors.HTTPError, OSError, ValueError) as error:
        raise WeightsError(f"{repo_id} could not be pushed: {_first_line(error)}") from error


def _download(
    repo_id: str,
    revision: str | None,
    fetch: Callable[..., Path],
    probed: str,
    lacking: str,
    *,
    local_files_only: bool = False,
    **hub_options: Any,
) -> Path:
    """What `fetch`, called as `_snapshot` is, finds in the local cache or puts there from the network.

    `probed` is the file that is asked for first, `lacking` what the repository holds when that is not there.
    """
    where = f"{repo_id} at revision {revision}" if revision else repo_id
    why_cached = "the network is switched off" if local_files_only or constants.HF_HUB_OFFLINE else ""
    try:
        if revision and _COMMIT.fullmatch(revision) and not why_cached:
            with contextlib.suppress(errors.LocalEntryNotFoundError):
                return fetch(repo_id, revision, revision, local_files_only=True, **hub_options)
        commit = revision
        if not why_cached:
            # One quick request first, or every file would be retried for long where there is no network.
            try:
                commit = _commit(repo_id, probed, revision, hub_options.get("token"))
            except errors.HfHubHTTPError as error:
                if error.response.status_code < 500:
                    raise
                why_cached = f"the Hub answers with error {error.response.status_code}"
            except errors.HTTPError as error:
                why_cached = f"the Hub cannot be reached ({_first_line(error)})"
        return fetch(repo_id, revision, commit, local_files_only=bool(why_cached), **hub_options)
    except errors.RevisionNotFoundError:
        raise WeightsError(f"{repo_id} has no revision {revision!r} on the Hub") from None
    except errors.RepositoryNotFoundError:
        raise WeightsError(
            f"there is neither a folder {repo_id} here nor a model {repo_id} on the Hub that you may read: "
            "check the name, and for a private model run 'hf auth login'"
        ) from None
    except errors.LocalEntryNotFoundError as error:
        reason = why_cached or f"the Hub fell silent ({_first_line(error)})"
        raise WeightsError(f"{where} is not in the local cache, and {reason}") from None
    except errors.EntryNotFoundError:
        raise WeightsError(f"{where} holds {lacking}") from None
    except (errors.HTTPError, OSError, ValueError) as error:
        raise WeightsError(f"{where} could not be downloaded: {_first_line(error)}") from error


def _commit(repo_id: str, probed: str, revision: str | None, token: str | bool | None) -> str | None:
    """The commit that a revision stands for on the Hub."""
    url = huggingface_hub.hf_hub_url(repo_id, probed, revision=revision)
    return huggingface_hub.get_hf_file_metadata(url, token=token, timeout=PATIENCE).commit_hash


def _snapshot(repo_id: str, revision: str | None, commit: str | None, **hub_options: Any) -> Path:
    """The cache's folder of one commit with all files in it; raises what hf_hub_download does."""
    fetch = functools.partial(huggingface_hub.hf_hub_download, repo_id, **hub_options)
    # The config says whether there are graphs: asking for what is not there would cost a request each.
    graphs = _read_json(Path(fetch(CONFIG, revision=commit))).get("onnx") is True
    weights = Path(fetch(WEIGHTS, revision=commit))
    for name in (METRICS, *((KEYPOINTS_GRAPH, DETECTOR_GRAPH) if graphs else ())):
        with contextlib.suppress(errors.EntryNotFoundError):  # weights without figures or graphs are weights
            fetch(name, revision=commit)
    # By the revision's own name, and last: the cache then knows the name once everything is there.
    config = Path(fetch(CONFIG, revision=revision))
    if config.parent != weights.parent:
        raise WeightsError(f"{repo_id} changed on the Hub while it was downloaded: try again")
    return config.parent


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


# --- The model card -----------------------------------------------------------------------------------------

_CARD = """\
# 68 facial keypoints

Finds every face in a picture and places the 68 keypoints of the iBUG / 300-W mark-up on each, with a
confidence for every point. One repository holds both networks: the face detector ({detector_size:.2f} million
parameters) and the keypoint network ({keypoints_size:.2f} million).

```python
from fkp import FaceKeypoints

model = FaceKeypoints.from_pretrained("{repo_id}")
faces = model("group.jpg")  # faces.boxes, faces.scores, faces.keypoints, faces.keypoint_scores
```

## Data and terms

Trained on YouTube Faces (with the keypoints of Udacity's course) and 300-W (LFPW, HELEN, AFW), which their
owners publish for research. The pictures are not part of this repository.

## Use

For placing keypoints on faces: alignment, effects, measuring expression. Not for telling who a person is.
Turned, covered, blurred and very small faces get less accurate points, which their confidence shows.

The jaw of a turned face is marked in the style `{style}` unless another is asked for: `300w` follows the
visible outline, `ytf` the hidden side of the head, `auto` what the picture looks like
(`FaceKeypoints.from_pretrained("{repo_id}", label_style="ytf")`).

## Measured

NME is the mean error of the points, in percent of the distance between the outer eye corners.

```json
{metrics}
```
"""


def card(
    keypoint_network: network.KeypointNetwork,
    face_detector: detector.Detector,
    metrics: dict[str, Any],
    repo_id: str,
) -> str:
    """The model card, README.md of the Hub repository."""
    data = huggingface_hub.ModelCardData(
        library_name="fkp",
        license="mit",
        pipeline_tag="keypoint-detection",
        tags=["face-landmarks", "facial-keypoints", "face-detection"],
    )
    text = _CARD.format(
        repo_id=repo_id,
        keypoints_size=sum(p.numel() for p in keypoint_network.parameters()) / 1e6,
        detector_size=sum(p.numel() for p in face_detector.network.parameters()) / 1e6,
        style=keypoint_network.config.label_style,
        metrics=json.dumps(metrics.get("accuracy", {}).get("figures", metrics), indent=2),
    )
    return f"---\n{data.to_yaml()}\n---\n\n{text}"
