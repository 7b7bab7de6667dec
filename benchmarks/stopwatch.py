"""A process that times one model on one number of threads; benchmarks/speed.py starts it again and again.

    python -m benchmarks.stopwatch ORDER

ORDER is JSON; the number of threads has to be in the environment already. The answer, on stdout, is JSON:
`start` (seconds of import, loading and first call; MiB of memory) and `tasks`, by name {"ms": [of each call],
"cores": CPU time / time}. Only what is needed is imported, so that start-up is measured.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

Task = Callable[[], Any]


def measure(task: Task, seconds: float, warm: int = 2) -> dict[str, Any]:
    """Milliseconds of each call in about `seconds`, at least one, after `warm` calls that do not count."""
    for _ in range(warm):
        task()
    samples: list[float] = []
    cpu, start = time.process_time(), time.perf_counter()
    now = start
    while not samples or now - start < seconds:
        before = time.perf_counter()
        task()
        now = time.perf_counter()
        samples.append(round(1000 * (now - before), 5))
    cores = (time.process_time() - cpu) / (now - start)
    return {"ms": samples, "cores": round(cores, 3)}


def peak_memory() -> float:
    """The most memory that this process has held so far, MiB (resident set; Linux)."""
    # Not ru_maxrss, which counts the memory of the process that started this one.
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


def subject(order: dict[str, Any]) -> tuple[dict[str, float], dict[str, Task]]:
    """Start-up, and the tasks: keypoints of n faces, the detector, whole pictures.

    Where the order names the `file` of YuNet, that is the detector, and there is nothing else.
    """
    begun = time.perf_counter()
    from fkp import FaceKeypoints

    imported = time.perf_counter()
    model = FaceKeypoints.from_pretrained(order["model"], backend=order["backend"], threads=order["threads"])
    loaded = time.perf_counter()
    import cv2
    import numpy as np

    stored = np.load(order["pictures"])
    frame = stored["640x480"]
    before = time.perf_counter()
    boxes = model(frame).boxes
    start = {
        "import_s": imported - begun, "load_s": loaded - imported,
        "first_call_s": time.perf_counter() - before, "memory_mib": peak_memory(),
    }  # fmt: skip
    cv2.setNumThreads(order["threads"])
    if "file" in order:
        from fkp.detectors.yunet import YuNet

        return start, {"detector": partial(YuNet(Path(order["file"])), frame)}
    tasks: dict[str, Task] = {
        f"keypoints {n}": partial(model.keypoints_at, frame, np.resize(boxes, (n, 4)))
        for n in order["batches"]
    }
    tasks["detector"] = lambda: model.face_detector(frame)
    return start, tasks | {f"predict {size}": partial(model, stored[size]) for size in order["sizes"]}


def main() -> None:
    # Libraries print to stdout as they like: it becomes stderr, and the answer goes where it led before.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    order = json.loads(sys.argv[1])
    start, tasks = subject(order)
    chosen = {name: task for name, task in tasks.items() if name in order.get("tasks", tasks)}
    found = {name: measure(task, order["seconds"]) for name, task in chosen.items()}
    print(json.dumps({"start": start, "tasks": found}), file=answers, flush=True)


if __name__ == "__main__":
    main()
