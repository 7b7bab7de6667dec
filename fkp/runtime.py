"""Runs networks: numpy arrays in, numpy arrays out, on the fastest backend that is installed.

On one thread of a CPU, ONNX Runtime takes less than half of torch's time a face (benchmarks/speed.py). It
runs the graph that `networks.export` wrote beside the weights, and only one made from exactly these weights.
"""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fkp.networks import keypoint_net

BACKENDS = ("onnxruntime", "torch", "torch-compile")
"""By name: ONNX Runtime, torch as it is, and torch compiled, which takes most of a minute at first use."""

WEIGHTS_SHA256 = "weights_sha256"
"""The key in a graph's metadata under which it says which weights it was made from; see `digest`."""


class BackendError(RuntimeError):
    """A backend that does not exist, or cannot run here: one sentence, and what to do."""


class Backend(Protocol):
    """A network ready to run. Any number of threads may call it."""

    name: ClassVar[str]
    """One of `BACKENDS`."""
    description: str
    """Name, version and threads, for people."""

    def __call__(self, pictures: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray, ...]:
        """What the network gives for pictures (n,h,w,3) uint8 RGB, n ≥ 1, and its other inputs."""
        ...


class Runner:
    """A network on the backend that was asked for by name or, by default, on the fastest that can be had.

    `module` takes pictures (n,3,h,w) uint8 RGB, perhaps more tensors, and gives a tuple of tensors; `graph`
    is the ONNX file made of it. A network moved to a GPU runs on torch there, whatever was asked for. The
    backend is made ready at the first use, and again when the weights have changed since.
    Raises BackendError: here for an unknown name, at the first use where the one asked for cannot be had.
    """

    def __init__(self, module: nn.Module, graph: Path | None = None, backend: str | None = None) -> None:
        if backend is not None and backend not in BACKENDS:
            raise BackendError(f"there is no backend {backend!r}: choose one of {', '.join(BACKENDS)}")
        self.module, self.graph, self.asked = module, graph, backend
        # Where the parameters are kept, so that one put in another's place is seen too.
        self._held = [part._parameters for part in module.modules() if part._parameters]
        self._ready: tuple[list[int], list[nn.Parameter], Backend] | None = None

    @property
    def backend(self) -> Backend:
        """The one that runs the network now."""
        parameters = [p for held in self._held for p in held.values() if p is not None]
        device = parameters[0].device if parameters else torch.device("cpu")
        # Torch counts the changes of each tensor, but not of those that cannot change.
        counts = [0 if p.is_inference() else p._version for p in parameters]
        state = [hash(device), *map(id, parameters), *counts]  # some µs, to be sure that no old copy runs
        ready = self._ready
        if ready is None or ready[0] != state:
            # Two threads may do so at once; both get the same, so the race is harmless. The parameters are
            # kept for their ids, which would be given anew.
            self._ready = ready = state, parameters, self._choose(device)
        return ready[2]

    def __call__(self, pictures: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray, ...]:
        """See `Backend`."""
        return self.backend(pictures, *more)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and other processes, which make their own backend ready."""
        return self.__dict__ | {"_ready": None}

    def _choose(self, device: torch.device) -> Backend:
        if device.type != "cpu" or self.asked == "torch":
            return Torch(self.module)
        if self.asked == "torch-compile":
            return TorchCompiled(self.module)
        try:
            return OnnxRuntime(self.module, self.graph)
        except BackendError:
            if self.asked is not None:
                raise
            return Torch(self.module)


class OnnxRuntime:
    """The graph on ONNX Runtime, on as many threads as torch has when it is made."""

    name: ClassVar[str] = "onnxruntime"

    def __init__(self, module: nn.Module, graph: Path | None) -> None:
        """Raises BackendError without the package, without a graph, and when it is of other weights."""
        # Newer ones (1.32, see its Privacy.md) would report to Microsoft over the network; read at import.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        try:
            import onnxruntime
        except ImportError:
            raise BackendError("onnxruntime is not installed: run 'pip install onnxruntime'") from None
        again = "run 'pip install onnx onnxscript' and save the model again"
        if graph is None or not graph.is_file():
            raise BackendError(f"these weights have no graph for onnxruntime beside them: {again}")
        threads = torch.get_num_threads()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # Threads that spin while they wait make each other slow where cores are shared.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # what is wrong is raised; nothing is to be printed
        try:
            self._session = onnxruntime.InferenceSession(
                graph.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # a class of its own for each kind of damage
            version, reason = onnxruntime.__version__, str(error).strip().splitlines()[0]
            raise BackendError(f"onnxruntime {version} cannot run {graph} ({reason}): {again}") from error
        if self._session.get_modelmeta().custom_metadata_map.get(WEIGHTS_SHA256) != digest(module):
            raise BackendError(f"{graph} was made from other weights: {again}")
        inputs = [*self._session.get_inputs(), *self._session.get_overridable_initializers()]
        self._names = [value.name for value in inputs]
        self.threads = threads
        self.description = f"onnxruntime {onnxruntime.__version__}, {_threads(threads)}"

    def __call__(self, pictures: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray, ...]:
        planes = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))
        return tuple(self._session.run(None, dict(zip(self._names, (planes, *more), strict=True))))


class Torch:
    """A copy of the network on torch, made quick: normalisations folded, channels last, no gradients."""

    name: ClassVar[str] = "torch"

    def __init__(self, module: nn.Module) -> None:
        self._network: Any = folded(module)
        parameter = next(module.parameters(), None)
        self._device = torch.device("cpu") if parameter is None else parameter.device
        where = _threads(torch.get_num_threads()) if self._device.type == "cpu" else f"on {self._device}"
        self.description = f"{self.name} {torch.__version__}, {where}"

    def __call__(self, pictures: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray, ...]:
        inputs = [torch.from_numpy(pictures).permute(0, 3, 1, 2), *map(torch.from_numpy, more)]
        with torch.inference_mode():
            outputs = self._network(*(tensor.to(self._device) for tensor in inputs))
        return tuple(output.float().cpu().numpy() for output in outputs)


class TorchCompiled(Torch):
    """The same copy, compiled at its first picture; faster than `Torch`, never the default."""

    name: ClassVar[str] = "torch-compile"

    def __init__(self, module: nn.Module) -> None:
        """Raises BackendError where there is no C++ compiler."""
        if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++", "cl"))):
            raise BackendError("torch-compile needs a C++ compiler: install g++, or choose another backend")
        super().__init__(module)
        self._network = torch.compile(self._network, dynamic=True)


class Decoded(nn.Module):
    """A keypoint network together with its codec: what is run, and what is written as a graph.

    `forward` takes crops (n,3,S,S) uint8 RGB and the index of a labelling style (1,) int64, and gives
    keypoints (n,68,2) and their spreads (n,68), both in pixels of the crop, as `predict` does.
    """

    def __init__(self, keypoint_network: keypoint_net.KeypointNetwork) -> None:
        super().__init__()
        self.network = keypoint_network
        # A graph is for crops of this size only, so the digest is to see it.
        self.register_buffer("crop_size", torch.tensor(keypoint_network.config.crop_size), persistent=False)

    def forward(self, crops: Tensor, label_style: Tensor) -> tuple[Tensor, Tensor]:
        outputs, log_spreads = self.network(crops, label_style.expand(crops.shape[0]))
        return self.network.codec.decode(outputs), log_spreads.exp()


def folded(module: nn.Module) -> nn.Module:
    """A copy for inference that computes the same: batch normalisation folded into the convolution before it.

    It is found where the two follow one another in an `nn.Sequential`. Saves a third of torch's time.
    """
    copied = copy.deepcopy(module).eval().requires_grad_(False)
    for sequence in [part for part in copied.modules() if isinstance(part, nn.Sequential)]:
        for i in range(len(sequence) - 1):
            convolution, norm = sequence[i], sequence[i + 1]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                sequence[i], sequence[i + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    return copied.to(memory_format=torch.channels_last)


def digest(module: nn.Module) -> str:
    """SHA-256, in hex, of every parameter and buffer: name, type, shape and bytes, in the names' order."""
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    sha256 = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].detach().cpu().contiguous().numpy()
        sha256.update(f"{name} {array.dtype} {array.shape}\n".encode())
        sha256.update(array.tobytes())
    return sha256.hexdigest()


def _threads(n: int) -> str:
    return f"{n} thread{'' if n == 1 else 's'}"
