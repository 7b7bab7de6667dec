"""Runs networks: NumPy arrays in, NumPy arrays out, on ONNX Runtime or, where that is asked for, on torch.

On one thread of a CPU, ONNX Runtime takes less than half of torch's time a face (benchmarks/speed.py). It
runs the graphs that `networks.export` wrote beside the weights, and only those made from exactly these
weights. Torch is imported only where it runs a network: on a GPU, or where `backend` asks for it.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakSet

import cv2
import numpy as np

BACKENDS = ("onnxruntime", "onnxruntime-int8", "torch", "torch-compile")
"""By name: ONNX Runtime in float32 and in 8-bit integers, torch as it is, and torch compiled, which takes
most of a minute at first use."""

DEVICES = ("cpu", "cuda", "mps", "auto")
"""Where networks run: `auto` is a GPU where torch finds one. On a GPU torch runs them."""

WEIGHTS_SHA256 = "weights_sha256"
"""The key in a graph's metadata under which it says which weights it was made from; see `digest`."""

MOST_BYTES = 64_000_000
"""Bytes that a graph may have; those of fkp have one or two million."""

CACHED = 8
"""Pictures that ONNX Runtime is given at once: each of 64 crops takes a fifth more time, on one thread, for
what lies between layers leaves the processor's cache."""

MOST_THREADS = 4
"""Threads of a network unless a call says otherwise; these networks are too small for more."""


class BackendError(RuntimeError):
    """A backend or a device that does not exist, or cannot run here: one sentence, and what to do."""


@dataclass(frozen=True)
class NetworkFiles:
    """What a network can be run from.

    `graphs` are ONNX files by the backend that runs them, `digest` is that of the weights, and `build` makes
    the torch module: pictures (n,3,h,w) uint8 RGB and other inputs in, a tuple of tensors out.
    """

    digest: str
    graphs: Mapping[str, Path]
    build: Callable[[], Any]
    check: Callable[[str, bytes], None] | None = None
    """Raises ValueError, a sentence about "it", or BackendError for a graph (backend, content) that is not to
    be run."""


class Runnable(Protocol):
    """A network that runs: `Runner` is one. Any number of threads may call it."""

    @property
    def name(self) -> str:
        """One of `BACKENDS`."""

    @property
    def description(self) -> str:
        """Name, version and threads, for people."""

    def __call__(self, pictures: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray, ...]:
        """What the network gives for pictures (n,h,w,3) uint8 RGB, n ≥ 1, and its other inputs."""


class Runner:
    """A network on the backend that was asked for by name or, by default, on the fastest that can be had.

    By default that is ONNX Runtime, in 8-bit integers where there is such a graph that may be run and the
    processor has instructions for it; torch where there is no graph that fits. In a process that was forked
    off, and in a copy that was pickled, the backend is made ready anew at its first picture.
    Raises BackendError for an unknown name or device, and where the one asked for cannot be had.
    """

    def __init__(
        self, files: NetworkFiles, backend: str | None = None, device: str = "cpu", threads: int | None = None
    ) -> None:
        """`threads` are those of ONNX Runtime, by default as many as the processor has, `MOST_THREADS` at
        most; torch has a number of its own."""
        if backend is not None and backend not in BACKENDS:
            raise BackendError(f"there is no backend {backend!r}: choose one of {', '.join(BACKENDS)}")
        if threads is not None and not (isinstance(threads, int | np.integer) and 1 <= threads <= 1024):
            raise BackendError(f"threads are {threads!r}, where a whole number from 1 to 1024 is needed")
        self.files, self.asked, self.device = files, backend, device_named(device)
        if self.device != "cpu" and backend is not None and not backend.startswith("torch"):
            raise BackendError(f"{backend} runs on the CPU, not on {device}: choose torch, or no backend")
        self.threads = int(threads or default_threads())
        _prepare_for_forks()
        # What cannot be had is told now, and not at the first picture.
        self._ready: tuple[int, Backend] | None = (os.getpid(), self._choose())

    @property
    def backend(self) -> Backend:
        """What runs the network in this process."""
        process = os.getpid()
        ready = self._ready
        if ready is None or ready[0] != process:
            # Two threads may do so at once; both get the same, so the race is harmless.
            self._ready = ready = process, self._choose()
        return ready[1]

    @property
    def name(self) -> str:
        """The one of `BACKENDS` that runs."""
        return self.backend.name

    @property
    def description(self) -> str:
        """Name, version and threads, for people."""
        return self.backend.description

    def __call__(self, pictures: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray, ...]:
        """See `Runnable`."""
        return self.backend(pictures, *more)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_ready": None}

    def _choose(self) -> Backend:
        if self.device != "cpu" or self.asked == "torch":
            return Torch(self.files, self.device)
        if self.asked == "torch-compile":
            return TorchCompiled(self.files, self.device)
        if self.asked is not None:
            return OnnxRuntime(self.files, self.asked, self.threads)
        wanted = ["onnxruntime-int8"] if int8_is_fast() and "onnxruntime-int8" in self.files.graphs else []
        problem: BackendError | None = None
        for name in [*wanted, "onnxruntime"]:
            try:
                return OnnxRuntime(self.files, name, self.threads)
            except BackendError as error:
                problem = error
        try:
            return Torch(self.files, self.device)
        except BackendError as error:
            raise BackendError(f"{problem}; and {error}") from error


class Backend(Protocol):
    """A network ready to run in this process."""

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str: ...

    def __call__(self, pictures: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray, ...]: ...


class OnnxRuntime:
    """A graph on ONNX Runtime."""

    def __init__(self, files: NetworkFiles, name: str = "onnxruntime", threads: int = 1) -> None:
        """Raises BackendError without the package, without a graph, and when it is of other weights."""
        # Newer ones (1.32, see its Privacy.md) would report to Microsoft over the network; read at import.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        try:
            import onnxruntime
        except ImportError:
            raise BackendError("onnxruntime is not installed: run 'pip install onnxruntime'") from None
        self.name = name
        again = "save the model again where 'pip install \"fkp[export]\"' was run"
        graph = files.graphs.get(name)
        if graph is None or not graph.is_file():
            raise BackendError(f"these weights have no graph for {name} beside them: {again}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # Threads that spin while they wait make each other slow where cores are shared.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # what is wrong is raised; nothing is to be printed
        if graph.stat().st_size > MOST_BYTES:
            raise BackendError(f"{graph} has more than the {MOST_BYTES / 1e6:g} MB that are read: {again}")
        content = graph.read_bytes()
        try:
            if files.check is not None:
                files.check(name, content)
        except ValueError as error:
            raise BackendError(f"{graph} {error}: {again}") from error
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # a class of its own for each kind of damage
            version, reason = onnxruntime.__version__, str(error).strip().splitlines()[0]
            raise BackendError(f"onnxruntime {version} cannot run {graph} ({reason}): {again}") from error
        if self._session.get_modelmeta().custom_metadata_map.get(WEIGHTS_SHA256) != files.digest:
            raise BackendError(f"{graph} was made from other weights: {again}")
        self._names = [value.name for value in self._session.get_inputs()]
        _WITH_THREADS.add(self)
        kind = "8-bit integers, " if name.endswith("int8") else ""
        self.description = f"onnxruntime {onnxruntime.__version__}, {kind}{_threads(threads)}"

    def __call__(self, pictures: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray, ...]:
        planes = np.empty((len(pictures), 3, *pictures.shape[1:3]), np.uint8)
        for picture, colours in zip(pictures, planes, strict=True):
            cv2.split(picture, list(colours))  # a quarter of the time that NumPy takes
        parts = [self._run(planes[i : i + CACHED], *more) for i in range(0, len(planes), CACHED)]
        return joined(parts)

    def _run(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(self._session.run(None, dict(zip(self._names, inputs, strict=True))))


class Torch:
    """The network on torch, made quick: normalisations folded, channels last, no gradients."""

    name = "torch"

    def __init__(self, files: NetworkFiles, device: str) -> None:
        """Raises BackendError where torch is not installed."""
        torch = _torch()
        from fkp.networks import state

        # Process-wide defaults of device and dtype are somebody else's.
        with torch.device("cpu"):
            self._network: Any = state.folded(files.build().float()).to(device)
        self._device = device
        where = _threads(torch.get_num_threads()) if device == "cpu" else f"on {device}"
        self.description = f"{self.name} {torch.__version__}, {where}"

    def __call__(self, pictures: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray, ...]:
        torch = _torch()
        if not pictures.flags.writeable:  # torch would warn
            pictures = pictures.copy()
        inputs = [torch.from_numpy(pictures).permute(0, 3, 1, 2), *map(torch.from_numpy, more)]
        with torch.inference_mode(), torch.device(self._device):
            outputs = self._network(*(tensor.to(self._device) for tensor in inputs))
        return tuple(output.float().cpu().numpy() for output in outputs)


class TorchCompiled(Torch):
    """The same, compiled at its first picture; faster than `Torch`, never the default."""

    name = "torch-compile"

    def __init__(self, files: NetworkFiles, device: str) -> None:
        """Raises BackendError where there is no C++ compiler."""
        if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++", "cl"))):
            raise BackendError("torch-compile needs a C++ compiler: install g++, or choose another backend")
        super().__init__(files, device)
        self._network = _torch().compile(self._network, dynamic=True)


def joined(parts: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """What a network gave for pictures part by part, as if it had been given them at once."""
    return parts[0] if len(parts) == 1 else tuple(map(np.concatenate, zip(*parts, strict=True)))


def digest(tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of what a network computes: its tensors as they are stored, and its config.

    Name, type, shape and bytes of each tensor in the names' order, then the config as JSON with sorted keys.
    """
    sha256 = hashlib.sha256()
    for name in sorted(tensors):
        array = np.asarray(tensors[name], order="C")
        sha256.update(f"{name} {array.dtype} {array.shape}\n".encode())
        sha256.update(array.tobytes())
    sha256.update(json.dumps(config, sort_keys=True).encode())
    return sha256.hexdigest()


def default_threads() -> int:
    """Processors that this process may use, `MOST_THREADS` at most; OMP_NUM_THREADS where that says less."""
    can = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(can, MOST_THREADS, int(told) if told.isdigit() and int(told) else MOST_THREADS))


def int8_is_fast() -> bool:
    """Whether the processor multiplies 8-bit integers quickly: VNNI on x86, dot products on ARM.

    On older ones int8 is slower than float32, and sums may saturate (onnxruntime's page on quantisation).
    """
    if platform.machine().lower() in ("arm64", "aarch64") and platform.system() == "Darwin":
        return True
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return bool(cv2.checkHardwareSupport(23))  # OpenCV's number of AVX-512 VNNI
    return not {"avx512_vnni", "avx_vnni", "asimddp"}.isdisjoint(flags)


def device_named(name: str) -> str:
    """The device of a name; `auto` is a GPU where torch is installed and finds one.

    Raises BackendError for a device that does not exist or is not here.
    """
    kind = str(name).split(":")[0]
    if kind not in DEVICES:
        raise BackendError(f"there is no device {name!r}: choose one of {', '.join(DEVICES)}")
    if kind == "cpu":
        return "cpu"
    try:
        torch = _torch()
    except BackendError:
        if kind == "auto":
            return "cpu"
        raise
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind == "auto":
        return next((device for device, is_here in here.items() if is_here), "cpu")
    if not here[kind]:
        raise BackendError(f"torch finds no device {name!r} here: choose cpu or auto")
    return name


def _torch() -> Any:
    # Spinning OpenMP threads made torch up to 50 times slower on shared cores; read when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import torch
    except ImportError:
        raise BackendError("torch is not installed: run 'pip install \"fkp[torch]\"'") from None
    return torch


_WITH_THREADS: WeakSet[OnnxRuntime] = WeakSet()


@cache
def _prepare_for_forks() -> None:
    """Threads do not come along into a process that is forked off: nothing may wait for them there.

    OpenCV's are sent home before a fork, for afterwards even that would wait for them. What holds threads of
    ONNX Runtime is never given up, for that would too. Torch is told to do without.
    """
    if not hasattr(os, "register_at_fork"):
        return
    lock, threads, forks = threading.RLock(), 0, 0  # the forks that threads are at just now

    def before() -> None:
        nonlocal threads, forks
        with lock:
            forks += 1
            if forks == 1:
                threads = cv2.getNumThreads()
                cv2.setNumThreads(1)

    def in_parent() -> None:
        nonlocal forks
        with lock:
            forks = max(0, forks - 1)
            if not forks:
                cv2.setNumThreads(threads)

    def in_child() -> None:
        nonlocal lock, forks
        lock, forks = threading.RLock(), 0
        for backend in list(_WITH_THREADS):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(backend))
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)


def _threads(n: int) -> str:
    return f"{n} thread{'' if n == 1 else 's'}"
