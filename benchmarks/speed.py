"""How fast it is: keypoints, detector, whole pictures, start-up, on every backend.

    python benchmarks/speed.py --write            # the table of README.md, and metrics.json

Every backend is timed on one thread and on all cores, each in a process of its own whose number of threads is
set before anything is imported. They take turns, round by round, so that whatever else the machine does meets
all of them alike. `ms` is the median over all calls, and `best_ms` that of the best round.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

import fkp
from benchmarks import published
from benchmarks.published import ROOT, table
from fkp import hub, images, pipeline, runtime

SECONDS = 5.0
ROUNDS = 5
BATCHES = (1, 4, 16)
SIZES = ("640x480", "1920x1080")


Subject = tuple[dict[str, Any], dict[str, Any]]
"""What is timed: labels that its rows of figures carry, and the order for its processes."""


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
    about = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    facts = dict(reversed(re.findall(r"^([^\t:]+)\s*: (.*)$", about, re.MULTILINE)))  # of the first one
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
    packages = {name: importlib.metadata.version(name) for name in ("torch", "onnxruntime", "numpy")}
    own = {"Python": platform.python_version(), "fkp": fkp.__version__, "opencv": cv2.__version__}
    return own | packages


def time_all(
    subjects: list[Subject], seconds: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of figures, one for each subject and task; of start-up, for each subject; and what was skipped, by
    name with the reason: what its process said last.

    The subjects take turns: in each of ROUNDS rounds every task has its share of `seconds`.
    """
    answers: dict[int, list[dict[str, Any]]] = {}
    skipped: dict[int, dict[str, Any]] = {}
    turns = [*enumerate(subjects)] * ROUNDS
    for number, (labels, asked) in tqdm(turns, leave=False, disable=None):
        if number in skipped:
            continue
        threads = str(asked["threads"])
        own = {name: threads for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        # Of a subject whose network is compiled, the first round alone compiles.
        own["TORCHINDUCTOR_CACHE_DIR"] = str(Path(asked["pictures"]).parent / f"compiled{number}")
        order = json.dumps(asked | {"seconds": seconds / ROUNDS})
        done = subprocess.run([sys.executable, "-m", "benchmarks.stopwatch", order], cwd=ROOT,
                              env=os.environ | own, capture_output=True, text=True)  # fmt: skip
        if done.returncode:
            reason = (done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
            skipped[number] = {**labels, "reason": reason}
        else:
            answers.setdefault(number, []).append(json.loads(done.stdout))
    measured = [(subjects[n][0], rounds) for n, rounds in answers.items() if n not in skipped]
    rows = [
        {**labels, "task": task} | summarise([each["tasks"][task] for each in rounds])
        for labels, rounds in measured
        for task in rounds[0]["tasks"]
    ]
    starts = []
    for labels, rounds in measured:
        each = pd.DataFrame([answer["start"] for answer in rounds])
        medians = each.median().round(3).to_dict()
        starts.append({**labels, **medians, "longest_first_call_s": round(each["first_call_s"].max(), 3)})
    return rows, starts, list(skipped.values())


def summarise(rounds: list[dict[str, Any]]) -> dict[str, float]:
    """Milliseconds of a call, the median of all and that of the best round, and how many cores were busy."""
    every = [sample for each in rounds for sample in each["ms"]]
    return {
        "ms": round(statistics.median(every), 4),
        "best_ms": round(min(statistics.median(each["ms"]) for each in rounds), 4),
        "cores": round(statistics.median(each["cores"] for each in rounds), 2),
        "calls": len(every),
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All figures, ready for JSON."""
    where = machine()
    model = pipeline.FaceKeypoints.from_pretrained(args.model)
    frames = pictures()
    found = {size: len(model(frame)) for size, frame in frames.items()}
    with tempfile.TemporaryDirectory() as folder:
        order = stored(Path(folder), args.model) | {"batches": BATCHES, "sizes": SIZES}
        subjects = [
            (asked := {"backend": backend, "threads": n}, order | asked)
            for backend in args.backends
            for n in sorted({1, cores()})
        ]
        rows, starts, skipped = time_all(subjects, args.seconds)
    return {
        "command": command(args, sys.argv[1:]), "machine": where, "versions": versions(), "rounds": ROUNDS,
        "seconds": args.seconds, "faces": found, "rows": rows, "starts": starts, "skipped": skipped,
    }  # fmt: skip


def stored(folder: Path, model: str | Path) -> dict[str, Any]:
    """What every order says: where the test pictures, which this writes, and the model are."""
    frames: dict[str, Any] = pictures()
    np.savez(folder / "pictures.npz", **frames)
    return {"pictures": str(folder / "pictures.npz"), "model": str(Path(model).resolve()), "backend": None}


def command(args: argparse.Namespace, given: list[str]) -> str:
    """The command that made the figures, without anyone's folders."""
    words = ("MODEL" if word == args.model else word for word in given)
    return " ".join(["python benchmarks/speed.py", *words])


def _threads(n: int) -> str:
    return "one thread" if n == 1 else f"{n} threads"


def words_of_machine(figures: dict[str, Any]) -> str:
    """One sentence or two: machine and versions."""
    m = figures["machine"]
    chips = f" with {', '.join(m['instructions'])}" if m["instructions"] else ""
    used = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    several = "cores" if m["cores"] > 1 else "core"
    return f"{m['cpu']}{chips}, {m['cores']} {several}, {m['memory_gib']} GiB, {m['system']}; {used}."


def report(figures: dict[str, Any]) -> str:
    """All figures, what was skipped, and how busy the machine was before."""
    told = (figures[name] for name in ("rows", "starts", "skipped"))
    tables = [pd.DataFrame(rows).to_string(index=False) for rows in told if rows]
    load = f"Load average before: {figures['machine']['load_before']}."
    return "\n\n".join([words_of_machine(figures), load, *tables])


def summary(figures: dict[str, Any]) -> str:
    """The short table for README.md: medians, one thread beside all cores."""
    ms = {(row["backend"], row["task"], row["threads"]): row["ms"] for row in figures["rows"]}
    numbers = sorted({threads for *_, threads in ms})
    rows = []

    def add(title: str, backend: str, task: str) -> None:
        cells = []
        for n in numbers:
            value, rate = ms[backend, task, n], 1000 / ms[backend, task, n]
            images = f"{rate:.1f} images/s" if rate < 100 else f"{rate:.0f} images/s"
            cells.append(images if task.startswith("predict") else f"{value:.2f} ms")
        rows.append([f"{title}, {backend}", *cells])

    backends = list(dict.fromkeys(backend for backend, *_ in ms))
    for backend in backends:
        add("keypoints of one face at a known box", backend, "keypoints 1")
    first = min(backends, key=lambda backend: ms[backend, "keypoints 1", numbers[0]])
    add("face detector, 640×480", first, "detector")
    for size in SIZES:
        title = f"whole picture, {size.replace('x', '×')}, {figures['faces'][size]} faces"
        add(title, first, f"predict {size}")
    lines, machine = table(["", *map(_threads, numbers)], rows), words_of_machine(figures)
    return f"{lines}\n\n{machine} Medians; made by `{figures['command']}`."


def parse(given: list[str] | None = None) -> argparse.Namespace:
    parser = published.parser(__doc__)
    parser.add_argument("--model", default=str(hub.BUNDLED), help="folder of the model (default: bundled)")
    parser.add_argument("--backends", nargs="+", choices=runtime.BACKENDS, default=runtime.BACKENDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each figure (default: 5)")
    return published.parse(parser, given, free=("model", "backends", "seconds"))


def main() -> None:
    args = parse()
    figures = measure(args)
    print(report(figures))
    if args.write:
        # The reasons may name folders of the one who measures.
        figures |= {"skipped": [each | {"reason": ""} for each in figures["skipped"]]}
        published.publish("speed", {"README.md": {"speed": summary(figures)}}, args.model, figures)


if __name__ == "__main__":
    main()
