"""Shards labelled by Ray Data, on a cluster: Ray schedules them, and repeats what was lost with a worker."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

# Ray would report its use over the network; read when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
import ray.data
import ray.exceptions

from fkp.label import table
from fkp.label.labeller import Done, Labeller, Settings
from fkp.label.local import WorkerDied
from fkp.label.sources import Shard

ANSWERS = 5.0
"""Seconds in which the head node takes a connection; Ray itself would wait for minutes where nobody does."""


class LabelShards:
    """`Labeller` as Ray Data calls it: columns of a batch in, columns of what came of them out."""

    def __init__(self, settings: Settings, out: str) -> None:
        import cv2

        cv2.setNumThreads(1)
        self.labeller = Labeller(settings, Path(out))

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        done = [self.labeller(Shard.from_json(text)) for text in batch["shard"]]
        columns: dict[str, list[Any]] = {"shard": [each.shard for each in done]}
        columns |= {name: [getattr(each.counts, name) for each in done] for name in table.Counts._fields}
        columns["incomplete"] = [json.dumps(each.incomplete) for each in done]
        return columns | {"problem": [each.problem or "" for each in done]}


def run(
    shards: Iterator[Shard], settings: Settings, out: Path, workers: int | None, address: str,
    gpus: float = 0,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Generator[Done]:  # fmt: skip
    """Label the shards on a Ray cluster by so many actors; what came of each, in the order they are done.

    `address` is that of the head node, or "auto" for the cluster that this machine belongs to; all nodes must
    see `out` and what the shards name. Each actor has one core and, where `gpus` is not 0, so much of a GPU.
    Without `workers` there are as many as fit, one core being left for Ray's own tasks. Raises ValueError
    where no cluster answers.
    """
    if not ray.is_initialized():
        _try(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
        ray.init(address=address, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    items, sizes = [], {}
    for shard in shards:
        items.append({"shard": shard.to_json()})
        sizes[shard.name] = shard.size
    if not items:
        return
    there = ray.cluster_resources()
    room = there.get("GPU", 0) // gpus if gpus else there.get("CPU", 1) - 1
    actors = max(1, min(int(workers or room), len(items)))
    # One shard an actor at a time, and one in a block, so that none waits behind another.
    labelled = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        LabelShards,
        fn_constructor_args=(settings, str(out.resolve())),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=1),
        num_cpus=1,
        num_gpus=gpus or None,
    )
    try:
        for row in labelled.iter_rows():
            counts = table.Counts(*(int(row[name]) for name in table.Counts._fields))
            progress(counts.pictures, sizes[row["shard"]])
            yield Done(row["shard"], counts, row["problem"] or None, tuple(json.loads(row["incomplete"])))
    except ray.exceptions.RayError as error:
        raise WorkerDied(f"Ray gave up: {error}") from error


def _try(address: str) -> None:
    """Raise ValueError where nobody listens at an address HOST:PORT; any other is left to Ray."""
    place = urlsplit(address if "://" in address else f"//{address}")
    if place.hostname is None or place.port is None:
        return
    try:
        socket.create_connection((place.hostname, place.port), ANSWERS).close()
    except OSError as error:
        raise ValueError(f"{address}: no Ray cluster answers there ({error})") from error
