"""The process that times one subject; benchmarks/speed.py starts one for each backend and number of threads.

    python -m benchmarks.stopwatch ORDER

ORDER is JSON: the `subject`, and what its function below reads of it. The number of threads has to be in the
environment already. The first line on stdout is JSON: facts, or {"unavailable": reason}. Then each line
{"task", "seconds", "warm"} on stdin is answered by a line {"ms": [of each call], "cores": CPU time / time}.
Only what a subject needs is imported, so that start-up is measured.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

Task = Callable[[], Iterator[Any]]
"""Starts something that can be timed: each `next` is one call of it."""


def repeat(call: Callable[[], Any]) -> Task:
    """The task of calling a function again and again."""

    def calls() -> Iterator[Any]:
        while True:
            yield call()

    return calls


def measure(task: Task, seconds: float, warm: int) -> dict[str, Any]:
    """Milliseconds of each call in about `seconds`, at least one, after `warm` calls that do not count."""
    calls = task()
    for _ in range(warm):
        next(calls)
    samples: list[float] = []
    cpu, start = time.process_time(), time.perf_counter()
    now = start
    while not samples or now - start < seconds:
        before = time.perf_counter()
        next(calls)
        now = time.perf_counter()
        samples.append(round(1000 * (now - before), 5))
    cores = (time.process_time() - cpu) / (now - start)
    calls.close()  # type: ignore[attr-defined]  # a generator's; loader processes end here
    return {"ms": samples, "cores": round(cores, 3)}


def peak_memory() -> float:
    """The most memory that this process has held so far, MiB (resident set)."""
    # Not ru_maxrss, where Linux counts the memory of the process that started this one.
    for line in Path("/proc/self/status").read_text().splitlines() if Path("/proc/self").is_dir() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def start(order: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Task]]:
    """Seconds of import, loading and the first call, and the peak of memory; a fresh process for each."""
    begun = time.perf_counter()
    from fkp import FaceKeypoints

    imported = time.perf_counter()
    model = FaceKeypoints.from_pretrained(order["model"], backend=order["backend"])
    loaded = time.perf_counter()
    import numpy as np

    image = np.load(order["pictures"])["640x480"]
    before = time.perf_counter()
    model(image)
    called = time.perf_counter()
    return {
        "import_s": imported - begun, "load_s": loaded - imported, "first_call_s": called - before,
        "memory_mib": peak_memory(),
    }, {}  # fmt: skip


def pretrained(order: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Task]]:
    """The model on one backend: keypoints of n faces, the network alone, the detector, whole pictures."""
    import cv2
    import numpy as np

    cv2.setNumThreads(order["threads"])
    from fkp import FaceKeypoints, scheme
    from fkp.geometry import CropTransform

    model = FaceKeypoints.from_pretrained(order["model"], backend=order["backend"], threads=order["threads"])
    stored = np.load(order["pictures"])
    frame, boxes = stored["640x480"], stored["boxes"]
    config = model.config
    crop = CropTransform.around_box(boxes[0], config.crop_size, config.margin).crop(frame)[None]
    style = np.array([scheme.style_index(model.label_style)])
    tasks = {
        "network": repeat(lambda: model.runner(crop, style)),
        "detector": repeat(lambda: model.face_detector(frame)),
    }
    for n in order["batches"]:
        at = np.resize(boxes, (n, 4))
        tasks[f"keypoints {n}"] = repeat(lambda at=at: model.keypoints_at(frame, at))  # type: ignore[misc]
    for size in order["sizes"]:
        picture = stored[size]
        tasks[f"predict {size}"] = repeat(lambda picture=picture: model(picture))  # type: ignore[misc]
    return {}, tasks


def face_detector(order: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Task]]:
    """The model's face detector or, where the order names its `file`, YuNet: on pictures by name."""
    import cv2
    import numpy as np

    cv2.setNumThreads(order["threads"])
    from fkp.detectors.yunet import YuNet
    from fkp.faces import FaceDetector
    from fkp.pipeline import FaceKeypoints

    detector: FaceDetector
    if "file" in order:
        detector = YuNet(Path(order["file"]))
    else:
        detector = FaceKeypoints.from_pretrained(order["model"], threads=order["threads"]).face_detector
    stored = np.load(order["pictures"])
    tasks = {name: repeat(partial(detector, stored[name])) for name in order["tasks"]}
    return {"version": f"OpenCV {cv2.__version__}"}, tasks


def training(order: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Task]]:
    """`train.py keypoints` with its defaults: the loader alone, the network alone, and both."""
    import torch
    from torch.utils.data import DataLoader

    import train

    arguments = ["keypoints", "--data", order["data"], "--threads", str(order["threads"]), "--device", "cpu"]
    args = train.parse([*arguments, *order["arguments"]])
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    task = train.make_task(args, args.device)
    if not task.steps_per_epoch:
        raise ValueError(f"{args.data} holds too few faces for one batch of {args.batch_size}")
    model = task.network.to(memory_format=torch.channels_last).train()
    optimizers = train.make_optimizers(args, model, task.hidden_kernels)

    def update(batch: dict[str, torch.Tensor], precision: str) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss, _ = task.loss(model, batch)
        train.descend(loss, model, optimizers, args.clip)

    def loader() -> Iterator[Any]:
        for step in range(10**9):
            yield task.batch(step, 0, 1)

    def both(precision: str) -> Iterator[Any]:
        batches = DataLoader(
            train.Steps(task, 0, 1), batch_size=None, sampler=range(10**9), num_workers=args.workers,
            prefetch_factor=4 if args.workers else None,
            worker_init_fn=train.leave_signals_to_the_trainer,
        )  # fmt: skip
        for batch in batches:
            update(batch, precision)
            yield

    fixed = task.batch(0, 0, 1)
    tasks: dict[str, Task] = {"loader": loader}
    for precision in order["precisions"]:
        tasks[f"network {precision}"] = repeat(lambda p=precision: update(fixed, p))  # type: ignore[misc]
        tasks[f"both {precision}"] = lambda p=precision: both(p)  # type: ignore[misc]
    return {"batch_size": args.batch_size, "workers": args.workers}, tasks


SUBJECTS: dict[str, Callable[[dict[str, Any]], tuple[dict[str, Any], dict[str, Task]]]]
SUBJECTS = {
    "start": start, "model": pretrained, "training": training, "detector": face_detector,
}  # fmt: skip


def main() -> int:
    # Libraries print to stdout as they like: it becomes stderr, and the answers go where it led before.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    order = json.loads(sys.argv[1])
    try:
        facts, tasks = SUBJECTS[order["subject"]](order)
        print(json.dumps(facts), file=answers)
        for line in sys.stdin:
            request = json.loads(line)
            found = measure(tasks[request["task"]], request["seconds"], request["warm"])
            print(json.dumps(found), file=answers)
    except Exception as error:  # whatever it is, the others are still measured
        words = " ".join(str(error).split()) or type(error).__name__
        print(json.dumps({"unavailable": words[:300]}), file=answers)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
