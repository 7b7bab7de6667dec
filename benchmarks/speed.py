"""How fast it is: keypoints, detector, whole pictures, start-up, training; and other people's landmark steps.

    python benchmarks/speed.py                                        # prints the tables
    python benchmarks/speed.py --data DATA --write                    # all of it, and publishes it

Every backend is timed on one thread and on all cores, each in a process of its own whose number of threads is
set before anything is imported. All processes stay alive and take turns, round by round, so that whatever
else the machine does meets all of them alike. A figure is the median over all calls, and in brackets the
median of the best round. Threads wait passively (OMP_WAIT_POLICY=PASSIVE), which is kind to shared machines.

`--write` puts the figures into the model's metrics.json and a short table into README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

import fkp  # noqa: E402
from benchmarks.published import publish  # noqa: E402
from benchmarks.speed_tables import BATCHES, SIZES, report, summary, threads_in_words  # noqa: E402
from fkp import hub, images, pipeline, runtime  # noqa: E402

SECONDS = 5.0
ROUNDS = 5
PRECISIONS = ("fp32", "bf16")
PATIENT = 6
"""Training steps that do not count: those whose batches the loader had ready when the clock was started."""


class Unavailable(Exception):
    """Something that cannot be timed here; one sentence says why."""


class Worker:
    """A process of benchmarks/stopwatch.py, ready to time its tasks. Raises Unavailable where it cannot."""

    def __init__(self, order: dict[str, Any], threads: int, *, python: str = sys.executable) -> None:
        number = str(threads)
        environment = os.environ | {
            "OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number, "OPENBLAS_NUM_THREADS": number,
            "OMP_WAIT_POLICY": "PASSIVE", "GLOG_minloglevel": "2",
        }  # fmt: skip
        if "compiled" in order:
            # What torch-compile keeps from earlier runs would hide how long its first call takes.
            environment["TORCHINDUCTOR_CACHE_DIR"] = order["compiled"]
        self._errors = tempfile.TemporaryFile("w+")
        command = [python, "-m", "benchmarks.stopwatch", json.dumps(order | {"threads": threads})]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip
        self.facts = self._answer()

    def time(self, task: str, seconds: float, warm: int = 2) -> dict[str, Any]:
        """Times one task: {"ms": of each call, "cores": that were busy}. Raises Unavailable."""
        assert self._process.stdin is not None
        request = {"task": task, "seconds": seconds, "warm": warm}
        with contextlib.suppress(BrokenPipeError):  # it has ended: its last words are read below
            print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """The process ends; also where it still works."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        try:
            line = self._process.stdout.readline()
        except BaseException:
            self.close()
            raise
        answer = json.loads(line) if line else {"unavailable": self._last_words()}
        if "unavailable" in answer:
            self.close()
            raise Unavailable(answer["unavailable"])
        return answer

    def _last_words(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        said = [line.strip() for line in self._errors if line.strip()]
        return said[-1] if said else f"the process ended with status {status}"


class Subject(NamedTuple):
    """What is timed: `order` for its worker, `labels` that its rows of figures carry, `tasks` by name."""

    name: str
    order: dict[str, Any]
    threads: int
    labels: dict[str, Any]
    tasks: tuple[str, ...]
    warm: int = 2
    python: str = sys.executable


def pictures() -> dict[str, np.ndarray]:
    """RGB frames of the usual sizes, made from the examples: two faces on the one, five on the other."""
    large = _frame(1920, 1080, {"four_faces": (0, 0, 1080, 1080), "eileen_collins": (1080, 120, 840, 840)})
    small = _frame(640, 480, {"eileen_collins": (0, 80, 320, 320), "grace_hopper": (320, 50, 320, 375)})
    return {"640x480": small, "1920x1080": large}


def _frame(width: int, height: int, pasted: dict[str, tuple[int, int, int, int]]) -> np.ndarray:
    """A grey frame with examples resized to w × h at x, y."""
    frame = np.full((height, width, 3), 128, np.uint8)
    for name, (x, y, w, h) in pasted.items():
        picture = images.read(ROOT / "examples" / f"{name}.jpg")
        frame[y : y + h, x : x + w] = cv2.resize(picture, (w, h), interpolation=cv2.INTER_AREA)
    return frame


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """The machine in words, without names that only its owner knows, and how busy it is already."""
    facts: dict[str, str] = {}
    if Path("/proc/cpuinfo").is_file():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    instructions = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX"}
    known = facts.get("flags", "").split()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "cpu": facts.get("model name") or platform.processor() or platform.machine(),
        "instructions": [word for flag, word in instructions.items() if flag in known],
        "cores": cores(),
        "memory_gib": round(memory / 2**30),
        "system": platform.system(),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def versions() -> dict[str, str]:
    """Of Python and of what the figures depend on."""
    found = {"Python": platform.python_version(), "fkp": fkp.__version__, "opencv": cv2.__version__}
    for name in ("torch", "onnxruntime", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def summarise(rounds: list[dict[str, Any]]) -> dict[str, float]:
    """Milliseconds of a call, the median of all and that of the best round, and how many cores were busy."""
    every = [sample for each in rounds for sample in each["ms"]]
    return {
        "ms": round(statistics.median(every), 4),
        "best_ms": round(min(statistics.median(each["ms"]) for each in rounds), 4),
        "cores": round(statistics.median(each["cores"] for each in rounds), 2),
        "calls": len(every),
    }


def time_all(
    subjects: Iterable[Subject], seconds: float, title: str
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Rows of figures, one for each subject and task, and what was skipped, by name with the reason.

    The workers take turns: in each of ROUNDS rounds every task of every subject has its share of `seconds`.
    """
    working: list[tuple[Subject, Worker]] = []
    skipped: list[dict[str, str]] = []
    measured: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def skip(subject: Subject, reason: Unavailable) -> None:
        skipped.append({"name": subject.name, "reason": str(reason)})
        tqdm.write(f"skipped: {subject.name}: {reason}", file=sys.stderr)

    try:
        for subject in tqdm(list(subjects), f"{title}: starting", leave=False):
            try:
                worker = Worker(subject.order, subject.threads, python=subject.python)
                working.append((subject, worker))
                for task in subject.tasks:
                    worker.time(task, 0, warm=1)  # compiles, and fills caches
            except Unavailable as reason:
                skip(subject, reason)
                working = [pair for pair in working if pair[0] is not subject]
        with tqdm(total=ROUNDS * sum(len(s.tasks) for s, _ in working), desc=title, leave=False) as bar:
            for _ in range(ROUNDS):
                for subject, worker in list(working):
                    try:
                        for task in subject.tasks:
                            found = worker.time(task, seconds / ROUNDS, subject.warm)
                            measured.setdefault((subject.name, task), []).append(found)
                            bar.update()
                    except Unavailable as reason:
                        skip(subject, reason)
                        working.remove((subject, worker))
        rows = [
            {**subject.labels, **worker.facts, "task": task} | summarise(measured[subject.name, task])
            for subject, worker in working
            for task in subject.tasks
        ]
    finally:
        for _, worker in working:
            worker.close()
    return rows, skipped


def time_starts(
    order: dict[str, Any], backends: Iterable[str], threads: int, times: int
) -> list[dict[str, Any]]:
    """Rows of start-up by backend, medians of `times` fresh processes in turn, and the longest first call."""
    found: dict[str, list[dict[str, float]]] = {}
    todo = [backend for _ in range(times) for backend in backends]
    for backend in tqdm(todo, "start-up", leave=False):
        try:
            worker = Worker(order | {"subject": "start", "backend": backend}, threads)
        except Unavailable:
            continue  # the timing of its keypoints says why
        found.setdefault(backend, []).append(worker.facts)
        worker.close()
    rows = []
    for backend, starts in found.items():
        row = {key: round(statistics.median(each[key] for each in starts), 3) for key in starts[0]}
        row["longest_first_call_s"] = round(max(each["first_call_s"] for each in starts), 3)
        rows.append({"backend": backend} | row)
    return rows


def subjects(args: argparse.Namespace, order: dict[str, Any]) -> list[Subject]:
    """Every backend on one thread and on all cores; `order` is what all workers need."""
    faces, whole = [f"keypoints {n}" for n in BATCHES], [f"predict {size}" for size in SIZES]
    own = (*faces, "network", "detector", *whole)
    order = order | {"batches": BATCHES, "sizes": SIZES}
    found = [
        Subject(
            f"{backend}, {threads_in_words(n)}", order | {"subject": "model", "backend": backend}, n,
            {"backend": backend, "threads": n}, own,
        )
        for backend in args.backends
        for n in sorted({1, cores()})
    ]  # fmt: skip
    return found


def trainer(args: argparse.Namespace) -> Subject:
    """`train.py keypoints` on one thread, in both precisions."""
    order = {
        "subject": "training", "data": str(args.data.resolve()), "arguments": args.training,
        "precisions": PRECISIONS,
    }  # fmt: skip
    tasks = ("loader", *(f"{what} {p}" for p in PRECISIONS for what in ("network", "both")))
    return Subject("training", order, 1, {}, tasks, warm=PATIENT)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All figures, ready for JSON."""
    where = machine()
    model = pipeline.FaceKeypoints.from_pretrained(args.model)
    frames = pictures()
    found = {size: model(frame) for size, frame in frames.items()}
    if not len(found["640x480"]):
        raise hub.WeightsError(f"the model {args.model} finds no face in the test picture")
    source = Path(args.model)
    order = {"model": str(source.resolve() if source.is_dir() else source)}
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "pictures.npz"
        arrays: dict[str, Any] = {"boxes": found["640x480"].boxes, **frames}
        np.savez(stored, **arrays)
        order |= {"pictures": str(stored), "compiled": str(Path(folder) / "compiled")}
        starts = time_starts(order, args.backends, cores(), args.starts)
        rows, skipped = time_all(subjects(args, order), args.seconds, "speed")
        training: list[dict[str, Any]] = []
        if args.data:
            training, more = time_all([trainer(args)], args.seconds, "training")
            skipped += more
    return {
        "command": command(args), "machine": where, "versions": versions(),
        "seconds": args.seconds, "rounds": ROUNDS, "starts_of_each": args.starts,
        "faces": {size: len(faces) for size, faces in found.items()},
        "rows": [row for row in rows if "backend" in row], "starts": starts,
        "training": training, "skipped": skipped,
    }  # fmt: skip


def command(args: argparse.Namespace) -> str:
    """The command that made the figures, without anyone's folders."""
    words = ["python benchmarks/speed.py"]
    words += ["--model MODEL"] * (args.model != str(hub.BUNDLED))
    words += [f"--backends {' '.join(args.backends)}"] * (tuple(args.backends) != runtime.BACKENDS)
    words += ["--data DATA"] * bool(args.data)
    words += [f"--training={word}" for word in args.training]
    words += [f"--seconds {args.seconds:g}"] * (args.seconds != SECONDS) + ["--write"] * args.write
    return " ".join(words)


def positive(word: str) -> float:
    number = float(word)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("has to be a number of seconds above 0")
    return number


def at_least_one(word: str) -> int:
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError("has to be 1 or more")
    return number


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default=str(hub.BUNDLED), help="folder of the model (default: bundled)")
    add("--backends", nargs="+", choices=runtime.BACKENDS, default=runtime.BACKENDS, help="default: all")
    add("--data", type=Path, help="also time training, on the data folder that README.md describes")
    add("--training", action="append", default=[], metavar="FLAG",
        help="a flag for train.py keypoints, as in --training=--batch-size=32")  # fmt: skip
    add("--seconds", type=positive, default=SECONDS, help="for each figure, over all rounds (default: 5)")
    add("--starts", type=at_least_one, default=5, help="fresh processes for start-up (default: 5)")
    add("--write", action="store_true", help="write metrics.json and README.md's table")
    args = parser.parse_args(arguments)
    return args


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    try:
        figures = measure(args)
        print(report(figures))
        if args.write:
            # The reasons may name folders of the one who measures.
            published = figures | {"skipped": [each["name"] for each in figures["skipped"]]}
            publish(Path(args.model), "speed", published, summary(published))
    except (hub.WeightsError, ValueError, OSError) as error:
        print(f"speed.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
