"""Many pictures → Parquet: `label`, which `fkp label` calls, on one machine or on a Ray cluster.

    source ─sources→ shards ─labeller→ outputs ─annotation→ COCO, CVAT, Label Studio

`local` gives the shards to processes, `cluster` to Ray; `table` is the layout of the outputs.
"""

from __future__ import annotations

import io
import os
import re
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

try:
    import pyarrow  # noqa: F401
except ImportError as error:
    raise ImportError("labelling needs pyarrow: run 'pip install \"fkp[label]\"'", name="pyarrow") from error

from fkp.label import local, sources, table
from fkp.label.labeller import Done, Labeller, Settings, output_path
from fkp.label.local import WorkerDied
from fkp.label.sources import Shard, SourceError
from fkp.label.table import Counts, LabelledPicture, read
from fkp.outputs import printable

__all__ = [
    "Counts", "Done", "LabelledPicture", "Labeller", "Settings", "Shard", "SourceError", "Summary",
    "WorkerDied", "label", "read",
]  # fmt: skip


@dataclass(frozen=True)
class Summary:
    """What came of a run: what was labelled in it and in how long, and what it found finished."""

    counts: Counts
    seconds: float
    finished_before: int
    problems: tuple[str, ...]
    """A sentence for every shard that could not be read."""
    incomplete: int = 0
    """Pictures that break off, which were labelled as far as they go."""

    def __str__(self) -> str:
        pictures, faces, unreadable = self.counts
        rate = pictures / max(self.seconds, 1e-9)
        text = f"{_count(pictures, 'picture')}, {_count(faces, 'face')}, in {self.seconds:.0f} s"
        text += f" ({rate:.1f} pictures/s)"
        text += f", {_count(unreadable, 'picture')} could not be read" if unreadable else ""
        text += f", {_count(self.incomplete, 'picture')} in part only" if self.incomplete else ""
        before, were = self.finished_before, "was" if self.finished_before == 1 else "were"
        return text + (f", {_count(before, 'shard')} {were} finished before" if before else "")


def label(
    source: str,
    out: str | Path,
    settings: Settings | None = None,
    *,
    workers: int | None = None,
    ray: str | None = None,
    gpus: float = 0,
    column: str | None = None,
    key: str | None = None,
    overwrite: bool = False,
    messages: TextIO | None = None,
) -> Summary:
    """Label every picture of a source (see `sources.shards`) into Parquet files in a folder, one a shard.

    Shards that are finished there are skipped, so the same call goes on with a run that was ended. Where a
    folder or a list has fewer shards than before, its outputs beyond the last are removed when the others are
    done, for their pictures have moved up. On one machine it starts `workers` processes (by default one for
    each core), so a script calls it under `if __name__ == "__main__"`; with `ray`, the address of a cluster
    or "auto", see `cluster.run`. Progress, shards that cannot be read, pictures that break off and outputs
    that are removed are told on `messages` (by default stderr).
    Raises SourceError, `hub.WeightsError`, WorkerDied, OSError, and ValueError where no cluster answers, or
    where `out` holds results of other weights or settings, unless `overwrite`.
    """
    if gpus and ray is None:
        raise ValueError("gpus are for the workers of a Ray cluster: give its address too, or leave them out")
    settings, out, began = (settings or Settings()).resolved(), Path(out), time.monotonic()
    messages = messages or sys.stderr or io.StringIO()  # closed, it would be stdout
    found, size = sources.shards(source, column, key)
    out.mkdir(parents=True, exist_ok=True)
    counts, skipped, incomplete = Counts(), 0, 0
    problems: list[str] = []
    last: Shard | None = None
    listed_size = 0
    bar_format = "{percentage:3.0f}%|{bar}| {postfix}, {elapsed} passed, {remaining} left"
    with tqdm(total=size, bar_format=bar_format, postfix="0 pictures", file=messages, disable=None) as bar:
        pictures = 0

        def listed() -> Iterator[Shard]:
            nonlocal last, listed_size
            for last in found:
                listed_size += last.size
                yield last

        def skip(shard: Shard) -> None:
            nonlocal skipped
            skipped += 1
            if not bar.disable:
                bar.initial += shard.size  # what is finished says nothing of how long the rest takes
            bar.update(shard.size)

        def progress(more: int, work: int) -> None:
            nonlocal pictures
            pictures += more
            rate = pictures / (time.monotonic() - began)
            bar.set_postfix_str(f"{_count(pictures, 'picture')}, {rate:.1f}/s", refresh=False)
            bar.update(work)

        todo = _unfinished(listed(), settings, out, overwrite, skip)
        results: Generator[Done]
        if ray is None:
            results = local.run(todo, settings, out, workers or _cores(), progress)
        else:
            try:
                from fkp.label import cluster
            except ImportError as error:
                raise ValueError(f"a cluster needs {error.name}: run 'pip install \"fkp[ray]\"'") from error
            results = cluster.run(todo, settings, out, workers, ray, gpus, progress)
        with closing(results):
            for done in results:
                counts = counts.plus(done.counts)
                incomplete += len(done.incomplete)
                if done.problem:
                    problems.append(done.problem)
                for sentence in filter(None, (*done.incomplete, done.problem)):
                    bar.write(f"fkp: {printable(sentence)}", file=messages)
        # Not where something was missing, for then their pictures need not be elsewhere.
        if last is not None and last.kind in ("files", "list") and listed_size == size and not problems:
            for sentence in _remove_beyond(last, out):
                bar.write(f"fkp: {printable(sentence)}", file=messages)
    return Summary(counts, time.monotonic() - began, skipped, tuple(problems), incomplete)


def _unfinished(
    shards: Iterator[Shard], settings: Settings, out: Path, overwrite: bool, skip: Callable[[Shard], None],
) -> Iterator[Shard]:  # fmt: skip
    """The shards that are to be labelled; `skip` is told of the others. Raises ValueError, see `label`."""
    for shard in shards:
        path = output_path(out, shard)
        was_there = path.exists()  # asked first, for another run may be done with it any moment
        about = table.about(path)
        if about is None:
            if was_there:
                raise ValueError(f"{path}: is there already and not a result of this version of fkp")
        elif not settings.agree_with(about):
            if not overwrite:
                raise ValueError(
                    f"{path}: was made with other weights or settings: choose another folder, or overwrite it"
                )
        elif about["fingerprint"] == shard.fingerprint:
            skip(shard)
            continue
        yield shard


def _remove_beyond(last: Shard, out: Path) -> list[str]:
    """Remove the outputs of a folder or list beyond its last shard; a sentence about what was there.

    Those of another source stay: nothing says that their pictures are in other shards now.
    """
    number = int(last.name.removeprefix("pictures-"))
    removed: list[Path] = []
    left: list[Path] = []
    for path in sorted(out.glob("pictures-*.parquet")):
        found = re.fullmatch(r"pictures-(\d{6,})", path.stem)
        if found and int(found[1]) > number and (about := table.about(path)) is not None:
            same = _unpinned(about["source"]) == _unpinned(last.where)
            (removed if same else left).append(path)
    for path in removed:
        path.unlink()
    told = {"removed, as there are fewer pictures now": removed, "of another source left": left}
    return [f"{_count(len(paths), 'output')} {what}: {paths[0]}" for what, paths in told.items() if paths]


def _unpinned(address: str) -> str:
    """The address of a dataset on the Hub without its commit."""
    return re.sub(r"@[0-9a-f]{40}(?=/|$)", "", address)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
