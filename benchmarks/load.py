"""How the page holds out: many programs that call /detect at once, for minutes, with pictures of all kinds.

    python benchmarks/load.py --write       # docs/load.md, which tells what is done
    python benchmarks/load.py --clients 8 --seconds 10 --requests 0         # a first look
"""

import argparse
import asyncio
import io
import itertools
import json
import platform
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import httpx
import numpy as np
from PIL import Image

from benchmarks import published
from benchmarks.published import ROOT, table
from benchmarks.serving import HERE_ONLY, Served, served
from benchmarks.speed import cores

EXAMPLES = ("eileen_collins", "four_faces", "grace_hopper")
KEPT_SECONDS = 60
WARM_UP = 2000
"""Requests before memory is looked at: what is kept for a minute has then come to its largest."""
LIMITS = {"box": 0.1, "keypoints": 0.1, "score": 0.005, "keypoint_scores": 0.005}
"""How far what is told of a face may be from what a lone request was told, in pixels and shares: the network
gives slightly different numbers for another number of faces in a batch."""
TURNS = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
"""By EXIF orientation: how pixels lie that it turns upright."""


class Picture(NamedTuple):
    """A file to be sent; `record` is what a lone request was answered."""

    name: str
    content: bytes
    record: Any = None


class Call(NamedTuple):
    """One request of one client, from the upload's first byte to the last of the answer.

    `kind` is "right", "wrong", "busy" or "error", told in a sentence; `apart` how far points are off, pixels.
    """

    began: float
    seconds: float
    kind: str
    told: str = ""
    apart: float = 0.0


def main() -> None:
    parser = published.parser(__doc__)
    parser.add_argument("--clients", type=int, default=32, help="at once (default: 32)")
    parser.add_argument("--seconds", type=float, default=120, help="how long, for latency (default: 120)")
    parser.add_argument("--requests", type=int, default=2 * WARM_UP, help="and how many, for memory")
    parser.add_argument("--crowd", type=int, default=128, help="clients for the full queue (default: 128)")
    args = published.parse(parser)
    sooner = f"from fkp.demo import data_retention; data_retention.KEPT_SECONDS = {KEPT_SECONDS}"
    command = ("-c", f"{sooner}; import app; app.main()", *HERE_ONLY)
    with tempfile.TemporaryDirectory() as folder, served(Path(folder), *command) as page:
        rows = asyncio.run(load(page, args))
    where = f"{cores()} cores, clients on the same machine, {platform.system()}"
    made = f"{where}, Python {platform.python_version()}; made by `python benchmarks/load.py --write`."
    text = f"{table(('what', ''), rows)}\n\n{made}"
    print(text)
    if args.write:
        published.publish("load", {"docs/load.md": {"load": text}})


def pictures() -> list[Picture]:
    """Mixed ones: sizes from a thumbnail to 12 megapixels, turned, grey, PNG and WebP, and without a face."""
    made = []
    for name in EXAMPLES:
        image = Image.open(ROOT / "examples" / f"{name}.jpg").convert("RGB")
        made += [_file(f"{name}_{width}.jpg", _wide(image, width)) for width in (120, 480, 1000, 2000)]
        made += [_file(f"{name}_turned_{tag}.jpg", image.transpose(back), tag) for tag, back in TURNS.items()]
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
        for key, most in LIMITS.items():
            apart = float(np.abs(np.subtract(face[key], other[key])).max())
            if apart > most:
                return apart, f"{key} is off by {apart:.3g}"
            farthest = max(farthest, apart if key in ("box", "keypoints") else 0)
    return farthest, ""


async def load(page: Served, args: argparse.Namespace) -> list[tuple[str, str]]:
    """Everything, one after the other; rows of the table."""
    known = await lone(page, pictures())
    before = page.memory(), page.descriptors()
    calls, sizes = await crowd(page, known, args.clients, args.seconds, args.requests)
    rows = told(calls, args.clients, args.seconds) + memory(sizes, before[0])
    full, _ = await crowd(page, known, args.crowd, min(args.seconds, 15), 0)
    count = Counter(call.kind for call in full)
    rows += [
        (f"{args.crowd} clients at once", f"{count['right']} right, {count['busy']} told that it is busy"),
        ("other errors, wrong answers", f"{count['error']}, {count['wrong']}"),
        *(("what they were told", sentence) for sentence in {c.told for c in full if c.kind == "busy"}),
    ]
    return rows + await remains(page, before[1])


async def lone(page: Served, files: list[Picture]) -> list[Picture]:
    """Each picture sent by itself, with what was answered."""
    known = []
    async with _client(page) as client:
        for file in files:
            kind, told = await ask(client, file.name, file.content)
            if kind != "complete":
                raise RuntimeError(f"{file.name}: {told}")
            known.append(Picture(file.name, file.content, told))
    return known


async def crowd(
    page: Served, known: list[Picture], clients: int, seconds: float, requests: int
) -> tuple[list[Call], list[tuple[int, int]]]:
    """So many clients, each with its next request as soon as the last is answered; until both are reached.

    Gives the calls, and now and then the requests done and bytes of memory.
    """
    calls: list[Call] = []
    sizes: list[tuple[int, int]] = []
    began, numbers = time.perf_counter(), itertools.count()
    often = np.array([1 / len(file.content) ** 0.5 for file in known])  # the largest come seldom

    async def one_client(number: int) -> None:
        rng = np.random.default_rng(number)
        async with _client(page) as client:
            while time.perf_counter() - began < seconds or len(calls) < requests:
                file = known[rng.choice(len(known), p=often / often.sum())]
                calls.append(await timed(client, file, f"{next(numbers)}_{file.name}", began))

    async def watch() -> None:
        while True:
            sizes.append((len(calls), page.memory()))
            await asyncio.sleep(0.5)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(one_client(number) for number in range(clients)))
    watching.cancel()
    return calls, sizes


async def timed(client: httpx.AsyncClient, file: Picture, name: str, began: float) -> Call:
    """One request, looked at."""
    start = time.perf_counter()
    try:
        kind, told = await ask(client, name, file.content)
    except httpx.HTTPError as error:
        kind, told = "error", f"{type(error).__name__} {error}"
    seconds, apart = time.perf_counter() - start, 0.0
    if kind == "complete":
        apart, told = difference(told, file.record | {"image": name})
        kind = "wrong" if told else "right"
    elif kind == "busy":
        await asyncio.sleep(0.5)  # as it was asked to
    return Call(start - began, seconds, kind, str(told), apart)


async def ask(client: httpx.AsyncClient, name: str, content: bytes) -> tuple[str, Any]:
    """Upload, call and wait for the answer, as docs/api.md does it with curl. Raises httpx.HTTPError.

    Gives "complete" and the result, or "busy" or "error" and the sentence.
    """
    uploaded = await client.post("gradio_api/upload", files={"files": (name, content)})
    picture = {"path": uploaded.raise_for_status().json()[0], "meta": {"_type": "gradio.FileData"}}
    started = await client.post("gradio_api/call/v2/detect", json={"picture": picture})
    if started.status_code == 503:
        return "busy", started.json()["detail"]
    if started.is_error:
        return "error", f"{started.status_code} {started.text}"
    kind = ""
    async with client.stream("GET", f"gradio_api/call/detect/{started.json()['event_id']}") as lines:
        async for line in lines.aiter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: ") and kind in ("complete", "error"):
                told = json.loads(line.removeprefix("data: "))
                return kind, told[0] if kind == "complete" else told
    return "error", "the answer broke off"


def _client(page: Served) -> httpx.AsyncClient:
    # While a call waits for many others, the server sends signs of life. Loopback needs no certificates.
    patience = httpx.Timeout(20, read=300)
    return httpx.AsyncClient(base_url=page.address, timeout=patience, trust_env=False, verify=False)


def told(calls: list[Call], clients: int, seconds: float) -> list[tuple[str, str]]:
    """Rows about the answers; latency and throughput are those of the first seconds."""
    count = Counter(call.kind for call in calls)
    times = [call.seconds for call in calls if call.kind == "right" and call.began < seconds]
    p50, p95, longest = np.percentile(times, [50, 95, 100]) if times else [np.nan] * 3
    done = sum(call.kind == "right" and call.began + call.seconds < seconds for call in calls)
    farthest = max((call.apart for call in calls), default=0)
    others = f"{count['wrong']}, {count['error']}, {count['busy']}"
    rows = [
        (f"{clients} clients at once on /detect, {seconds:.0f} s", f"{done / seconds:.1f} requests/s"),
        ("latency, upload to answer", f"p50 {p50:.2f} s, p95 {p95:.2f} s, longest {longest:.2f} s"),
        ("requests in all", str(len(calls))),
        ("answered as a lone request is", f"{count['right']}, no point off by more than {farthest:.2g} px"),
        ("answered otherwise, errors, told that it is busy", others),
    ]
    problems = Counter(f"{call.kind}: {call.told}" for call in calls if call.kind in ("wrong", "error"))
    return rows + [(sentence, str(often)) for sentence, often in problems.most_common(5)]


def memory(seen: list[tuple[int, int]], at_first: int) -> list[tuple[str, str]]:
    """Rows about the memory of the server."""
    requests, sizes = np.array(seen).T
    sizes = sizes / 1e6
    rows = [("memory of the server: before, at most", f"{at_first / 1e6:.0f} MB, {sizes.max():.0f} MB")]
    later = requests >= WARM_UP
    if later.sum() >= 10:
        (slope, _), covariance = np.polyfit(requests[later] / 1000, sizes[later], 1, cov=True)
        what = f"slope over requests {WARM_UP} to {requests[-1]:.0f} (least squares, ± standard error)"
        rows += [(what, f"{slope:+.1f} ± {covariance[0, 0] ** 0.5:.1f} MB per 1000 requests")]
    return rows


async def remains(page: Served, descriptors: int) -> list[tuple[str, str]]:
    """Rows about what is left when all are gone and the time for which uploads are kept is over."""

    def files() -> int:
        return len(list(page.folder.glob("fkp-*/**/*")))

    at_once = files()
    for _ in range(KEPT_SECONDS + 150):
        await asyncio.sleep(1 if files() else 0)
    return [
        ("memory when all are gone", f"{page.memory() / 1e6:.0f} MB"),
        ("files and folders of visitors: at the end, after their time", f"{at_once}, {files()}"),
        ("files and connections open: before, after", f"{descriptors}, {page.descriptors()}"),
    ]


if __name__ == "__main__":
    main()
