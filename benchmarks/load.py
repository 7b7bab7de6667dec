"""How the page holds out: many programs that call /detect at once, for minutes, with pictures of all kinds.

    python benchmarks/load.py --write       # two minutes of 32 clients and what is left of them; docs/load.md
    python benchmarks/load.py --clients 8 --seconds 10 --requests 0         # a first look
    python benchmarks/load.py --address http://127.0.0.1:7860/ --pid 1234   # a page that runs already

It starts the page itself, as `python app.py` does but for one thing: uploads are kept for a minute instead of
an hour, so that it can be seen that nothing stays. Every answer is compared with that to a lone request.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import os
import platform
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import httpx  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from benchmarks import rest  # noqa: E402
from benchmarks.published import DOCS, between_marks  # noqa: E402
from benchmarks.tables import table  # noqa: E402

EXAMPLES = ("eileen_collins", "four_faces", "grace_hopper")
KEPT_SECONDS = 60
WARM_UP = 2000
"""Requests before memory is looked at: what is kept for a minute has then come to its largest."""
PIXELS, SCORE = 0.1, 0.005
"""How far a keypoint or box, and a score, may be from those of the lone request: the network gives slightly
different numbers for another number of faces in a batch."""


@dataclass(frozen=True)
class Picture:
    """A file to be sent; `record` is what a lone request was answered."""

    name: str
    content: bytes
    record: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One request of one client, from the upload's first byte to the last of the answer."""

    began: float
    seconds: float
    kind: str
    told: str = ""


@dataclass
class Run:
    """What came of it: the calls, and (seconds, requests done, bytes of memory) now and then."""

    calls: list[Call] = field(default_factory=list)
    memory: list[tuple[float, int, int]] = field(default_factory=list)
    farthest: float = 0

    def count(self) -> Counter[str]:
        return Counter(call.kind for call in self.calls)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=32, help="at once (default: 32)")
    parser.add_argument("--seconds", type=float, default=120, help="how long, for latency (default: 120)")
    parser.add_argument(
        "--requests", type=int, default=2 * WARM_UP, help=f"and how many, for memory (default: {2 * WARM_UP})"
    )
    parser.add_argument("--crowd", type=int, default=128, help="clients for the full queue (default: 128)")
    parser.add_argument("--address", help="of a page that runs already")
    parser.add_argument("--pid", type=int, help="its process, to look at its memory")
    parser.add_argument("--write", action="store_true", help="write the tables of docs/load.md")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder, page(args.address, args.pid, Path(folder)) as served:
        command = f"made by `{' '.join(['python benchmarks/load.py', *sys.argv[1:]])}`."
        rows = asyncio.run(load(served, args))
        text = f"{table(('what', ''), rows)}\n\n{machine()}; {command}"
    print(text)
    if args.write:
        target = DOCS / "load.md"
        target.write_text(between_marks(target, "load", {"load": text}))


# --- The page -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Served:
    """A page that runs; `pid` and `folder`, that of its uploads, where they are known."""

    address: str
    pid: int | None = None
    folder: Path | None = None

    def memory(self) -> int:
        """Bytes of memory that its process has; 0 where that cannot be known."""
        status = Path(f"/proc/{self.pid}/status")
        if self.pid is None or not status.exists():
            return 0
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmRSS:")]
        return 1024 * int(line.split()[1])

    def descriptors(self) -> int:
        """How many files and connections its process has open."""
        folder = Path(f"/proc/{self.pid}/fd")
        return len(list(folder.iterdir())) if self.pid is not None and folder.exists() else 0

    def files(self) -> int:
        """How many files and folders of visitors it holds."""
        return len(list(self.folder.glob("fkp-*/**/*"))) if self.folder else 0


@contextmanager
def page(address: str | None, pid: int | None, folder: Path) -> Iterator[Served]:
    """A page that runs already, or else one in a process of its own that ends in the end."""
    if address is not None:
        yield Served(address, pid)
        return
    sooner = f"from fkp.demo import data_retention; data_retention.KEPT_SECONDS = {KEPT_SECONDS}"
    command = [
        sys.executable,
        "-c",
        f"{sooner}; import app; app.main()",
        "--no-browser",
        "--host",
        "127.0.0.1",
    ]
    environment = os.environ | {"GRADIO_TEMP_DIR": str(folder)}
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        line = next((line for line in process.stdout if line.startswith("Ready after ")), None)
        if line is None:
            raise RuntimeError("the page did not start")
        yield Served(line.split()[4], process.pid, folder)
    finally:
        process.terminate()
        process.wait(30)


def machine() -> str:
    """What it ran on, in words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{cores} cores, clients on the same machine, {platform.system()}, Python {platform.python_version()}"
    )


# --- The pictures ---------------------------------------------------------------------------------------


def pictures() -> list[Picture]:
    """Mixed ones: sizes from a thumbnail to 12 megapixels, turned, grey, PNG and WebP, and without a face."""
    made = []
    for name in EXAMPLES:
        with Image.open(ROOT / "examples" / f"{name}.jpg") as opened:
            image = opened.convert("RGB")
        made += [_file(f"{name}_{width}.jpg", _wide(image, width)) for width in (120, 480, 1000, 2000)]
        made += [
            _file(f"{name}_turned_{orientation}.jpg", image.transpose(back), orientation)
            for orientation, back in {
                3: Image.Transpose.ROTATE_180,
                6: Image.Transpose.ROTATE_90,
                8: Image.Transpose.ROTATE_270,
            }.items()
        ]
        made += [_file(f"{name}.png", _wide(image, 640)), _file(f"{name}.webp", _wide(image, 800))]
        made += [_file(f"{name}_grey.jpg", image.convert("L"))]
    made += [_file("12_megapixels.jpg", image.resize((3460, 3468)))]
    noise = np.random.default_rng(0).integers(0, 40, (960, 1280, 3))
    slope = np.linspace(60, 200, 1280)[None, :, None]
    made += [_file("nobody.jpg", Image.fromarray((noise + slope).clip(0, 255).astype(np.uint8)))]
    return made


def _wide(image: Image.Image, width: int) -> Image.Image:
    return image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)


def _file(name: str, image: Image.Image, orientation: int = 1) -> Picture:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = io.BytesIO()
    image.save(content, Image.registered_extensions()[Path(name).suffix], exif=exif, quality=88)
    return Picture(name, content.getvalue())


def difference(record: dict[str, Any], expected: dict[str, Any]) -> tuple[float, str]:
    """How far, in pixels, a record is from what is expected; and in words where it is another answer."""
    for key in ("image", "width", "height"):
        if record[key] != expected[key]:
            return 0, f"{key} is {record[key]!r} instead of {expected[key]!r}"
    if len(record["faces"]) != len(expected["faces"]):
        return 0, f"{len(record['faces'])} faces instead of {len(expected['faces'])}"
    farthest = 0.0
    for face, other in zip(record["faces"], expected["faces"], strict=True):
        for key, most in (
            ("box", PIXELS),
            ("keypoints", PIXELS),
            ("score", SCORE),
            ("keypoint_scores", SCORE),
        ):
            apart = float(np.abs(np.subtract(face[key], other[key])).max())
            if apart > most:
                return apart, f"{key} is off by {apart:.3g}"
            farthest = max(farthest, apart if most == PIXELS else 0)
    return farthest, ""


# --- The load -------------------------------------------------------------------------------------------


async def load(served: Served, args: argparse.Namespace) -> list[tuple[str, str]]:
    """Everything, one after the other; rows of the table."""
    known = await lone(served, pictures())
    before = served.memory(), served.descriptors()
    run = await crowd(served, known, args.clients, args.seconds, args.requests)
    rows = told(run, args.clients, args.seconds)
    rows += memory(run, before[0])
    if args.crowd:
        full = await crowd(served, known, args.crowd, min(args.seconds, 15), 0)
        count = full.count()
        rows += [
            (
                f"{args.crowd} clients at once",
                f"{count['right']} right, {count['busy']} told that it is busy",
            ),
            ("other errors, wrong answers", f"{count['error']}, {count['wrong']}"),
        ]
        busy = {call.told for call in full.calls if call.kind == "busy"}
        rows += [("what they were told", sentence) for sentence in busy]
    rows += await remains(served, before[1])
    return rows


async def lone(served: Served, files: list[Picture]) -> list[Picture]:
    """Each picture sent by itself, with what was answered."""
    known = []
    async with _client(served) as client:
        for file in files:
            answer = await ask(client, file, file.name)
            if answer.kind != "complete":
                raise RuntimeError(f"{file.name}: {answer.told}")
            known.append(Picture(file.name, file.content, answer.told))
    return known


async def crowd(served: Served, known: list[Picture], clients: int, seconds: float, requests: int) -> Run:
    """So many clients, each with its next request as soon as the last is answered; until both are reached."""
    run, began, numbers = Run(), time.perf_counter(), itertools.count()

    def going() -> bool:
        return time.perf_counter() - began < seconds or len(run.calls) < requests

    async def one_client(number: int) -> None:
        rng = np.random.default_rng(number)
        often = np.array([1 / len(file.content) ** 0.5 for file in known])  # the largest come seldom
        async with _client(served) as client:
            while going():
                file = known[rng.choice(len(known), p=often / often.sum())]
                run.calls.append(await timed(client, file, f"{next(numbers)}_{file.name}", began, run))

    async def watch() -> None:
        while True:
            run.memory.append((time.perf_counter() - began, len(run.calls), served.memory()))
            await asyncio.sleep(0.5)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(one_client(number) for number in range(clients)))
    watching.cancel()
    return run


async def timed(client: httpx.AsyncClient, file: Picture, name: str, began: float, run: Run) -> Call:
    """One request, looked at."""
    start = time.perf_counter()
    try:
        answer = await ask(client, file, name)
    except httpx.HTTPError as error:
        answer = rest.Answer("error", f"{type(error).__name__} {error}")
    seconds = time.perf_counter() - start
    if answer.kind == "complete":
        apart, wrong = difference(answer.told, file.record | {"image": name})
        run.farthest = max(run.farthest, apart)
        return Call(start - began, seconds, "wrong" if wrong else "right", wrong)
    if answer.kind == "busy":
        await asyncio.sleep(0.5)  # as it was asked to
    return Call(start - began, seconds, answer.kind, str(answer.told))


async def ask(client: httpx.AsyncClient, file: Picture, name: str) -> rest.Answer:
    path = await rest.upload(client, name, file.content)
    return await rest.call(client, "detect", {"picture": rest.picture(path)})


def _client(served: Served) -> httpx.AsyncClient:
    verify = _certificates()
    return httpx.AsyncClient(base_url=served.address, timeout=rest.PATIENCE, trust_env=False, verify=verify)


@cache
def _certificates() -> ssl.SSLContext:
    """Once for all clients, for they take long to load."""
    return ssl.create_default_context()


# --- What is told of it ---------------------------------------------------------------------------------


def told(run: Run, clients: int, seconds: float) -> list[tuple[str, str]]:
    """Rows about the answers of a run; latency and throughput are those of its first seconds."""
    count = run.count()
    times = [call.seconds for call in run.calls if call.kind == "right" and call.began < seconds]
    p50, p95 = np.percentile(times, [50, 95]) if times else (np.nan, np.nan)
    done = sum(call.kind == "right" and call.began + call.seconds < seconds for call in run.calls)
    rows = [
        (f"{clients} clients at once on /detect, {seconds:.0f} s", f"{done / seconds:.1f} requests/s"),
        ("latency, upload to answer", f"p50 {p50:.2f} s, p95 {p95:.2f} s, longest {max(times):.2f} s"),
        ("requests in all", str(len(run.calls))),
        (
            "answered as a lone request is",
            f"{count['right']}, no point off by more than {run.farthest:.2g} px",
        ),
        (
            "answered otherwise, errors, told that it is busy",
            f"{count['wrong']}, {count['error']}, {count['busy']}",
        ),
    ]
    problems = Counter(f"{call.kind}: {call.told}" for call in run.calls if call.kind in ("wrong", "error"))
    return rows + [(sentence, str(often)) for sentence, often in problems.most_common(5)]


def memory(run: Run, at_first: int) -> list[tuple[str, str]]:
    """Rows about the memory of the server in a run."""
    _, requests, sizes = np.array(run.memory).T
    sizes = sizes / 1e6
    rows = [("memory of the server: before, at most", f"{at_first / 1e6:.0f} MB, {sizes.max():.0f} MB")]
    later = requests >= WARM_UP
    if later.sum() >= 10:
        (slope, _), covariance = np.polyfit(requests[later] / 1000, sizes[later], 1, cov=True)
        what = f"slope over requests {WARM_UP} to {requests[-1]:.0f} (least squares, ± standard error)"
        rows += [(what, f"{slope:+.1f} ± {covariance[0, 0] ** 0.5:.1f} MB per 1000 requests")]
    return rows


async def remains(served: Served, descriptors: int) -> list[tuple[str, str]]:
    """Rows about what is left when all are gone and the time for which uploads are kept is over."""
    at_once, end = served.files(), time.perf_counter() + KEPT_SECONDS + 150
    while served.files() and time.perf_counter() < end:
        await asyncio.sleep(1)
    rows = [("memory when all are gone", f"{served.memory() / 1e6:.0f} MB")]
    if served.folder:
        rows += [
            ("files and folders of visitors: at the end, after their time", f"{at_once}, {served.files()}")
        ]
    return rows + [("files and connections open: before, after", f"{descriptors}, {served.descriptors()}")]


if __name__ == "__main__":
    main()
