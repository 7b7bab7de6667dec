"""How fast `fkp label` is, what it needs of memory over time, and what a hundred million pictures cost.

    python benchmarks/label.py --data DATA --pictures 2000            # one process, and one for each core
    python benchmarks/label.py --data DATA --pictures 20000 --kill

The pictures are those of DATA (README.md says how it is laid out) turned a little, mirrored, brightened and
compressed anew by chance, in tar shards of 250. A picture a core-hour is counted in the processor's time, of
which a busy machine takes nothing; pictures a second are by the clock, and say something on an idle one.
`--kill` ends the run, all its processes at once, when a half is done, and goes on with it.
"""

import argparse
import contextlib
import io
import os
import resource
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from benchmarks.published import ROOT
from benchmarks.speed import cores, machine
from fkp import FaceKeypoints, images
from fkp.label import table

FOLDERS = ("300w/helen_train", "300w/lfpw_train", "wider/train", "masks", "no_faces")
A_SHARD = 250
EVERY = 5.0
"""Seconds between two looks at the memory."""


def varied(data: Path, count: int, out: Path) -> None:
    """Write so many pictures as tar shards."""
    paths = [path for folder in FOLDERS for path in sorted((data / folder).glob("*.jpg"))]
    draw = np.random.default_rng(0)
    for start in tqdm(range(0, count, A_SHARD), "making pictures", leave=False):
        with tarfile.open(out / f"{start // A_SHARD:05d}.tar", "w") as tar:
            for number in range(start, min(start + A_SHARD, count)):
                image = images.read(paths[draw.integers(len(paths))])
                height, width = image.shape[:2]
                turn = cv2.getRotationMatrix2D((width / 2, height / 2), draw.uniform(-10, 10), 1.0)
                image = cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REFLECT)
                image = image[:, ::-1] if draw.random() < 0.5 else image
                image = cv2.convertScaleAbs(image, alpha=draw.uniform(0.7, 1.2))
                data_of = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
                about = tarfile.TarInfo(f"{number:08d}.jpg")
                about.size = len(data_of)
                tar.addfile(about, io.BytesIO(data_of))


def memory(process: int) -> float:
    """MB of a process and all below it, shared pages counted once (PSS)."""
    total = 0.0
    with contextlib.suppress(OSError):  # it has ended
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        total = int(rollup.partition("\nPss:")[2].split()[0]) / 1024
        for path in Path(f"/proc/{process}/task").glob("*/children"):
            total += sum(memory(int(child)) for child in path.read_text().split())
    return total


def run(
    source: Path, out: Path, workers: int, passes: str, half: int | None = None
) -> tuple[float, float, list[float]]:
    """Seconds by the clock and of processors, and the memory over time, of one run.

    With `half` shards done, all its processes are killed.
    """
    flags = ["--out", str(out), "--workers", str(workers), "--passes", passes]
    command = [sys.executable, "-m", "fkp", "label", str(source), *flags]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    seen = []
    while process.poll() is None:
        seen.append(memory(process.pid))
        if half is not None and len(list(out.glob("[!.]*"))) >= half:
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(EVERY)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return time.monotonic() - began, used, seen


def outputs(out: Path) -> tuple[int, set[tuple[str, int]]]:
    """Pictures in finished outputs, and picture and number of each face. Raises ValueError for doubles."""
    done = sorted(out.glob("[!.]*.parquet"))
    empty = pa.table({"picture": [], "face": []})
    found = pq.read_table(done, columns=["picture", "face"]) if done else empty
    faces = set(zip(found["picture"].to_pylist(), found["face"].to_pylist(), strict=True))
    if len(faces) != len(found):
        raise ValueError("rows are there twice")
    return sum(about["pictures"] for path in done if (about := table.about(path))), faces


def alone(source: Path, passes: str | int, count: int = 100) -> float:
    """Pictures a core-second of the model itself, one decoded picture after the other."""
    model = FaceKeypoints.from_pretrained(threads=1, passes=passes)
    with tarfile.open(sorted(source.glob("*.tar"))[0]) as tar:
        files = [tar.extractfile(member) for member in tar.getmembers()[:count]]
        decoded = [images.decode(file.read(), "").image for file in files if file is not None]
    model(decoded[0])
    began = time.process_time()
    for image in decoded:
        model(image)
    return len(decoded) / (time.process_time() - began)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--data", type=Path, required=True, help="the data folder that README.md describes")
    parser.add_argument("--pictures", type=int, default=2000, help="how many (default: 2000)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, cores()], help="processes of each run")
    parser.add_argument("--passes", choices=("auto", "1", "2"), default="auto", help="as in fkp label")
    parser.add_argument("--kill", action="store_true", help="end every run in the middle, and go on with it")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary, "in")
        source.mkdir()
        varied(args.data, args.pictures, source)
        size, where = sum(path.stat().st_size for path in source.iterdir()), machine()
        print(f"{args.pictures} pictures, {size / args.pictures / 1000:.0f} kB each; {where['cpu']}, "
              f"{where['cores']} cores, load {where['load_before']}")  # fmt: skip
        rate = 3600 * alone(source, args.passes if args.passes == "auto" else int(args.passes))
        print(f"the model alone, on decoded pictures: {rate:.0f} pictures a core-hour")
        for workers in args.workers:
            out, seconds, kept = Path(temporary, f"out-{workers}"), 0.0, 0
            before: dict[Path, int] = {}
            if args.kill:
                half = max(1, -(-args.pictures // A_SHARD) // 2)
                seconds, _, _ = run(source, out, workers, args.passes, half)
                kept, left = outputs(out)[0], len(list(out.glob(".*.part")))
                print(f"killed after {seconds:.0f} s: {kept} pictures finished, {left} shards were begun")
                before = {path: path.stat().st_mtime_ns for path in out.glob("[!.]*")}
            clock, used, seen = run(source, out, workers, args.passes)
            count, faces = outputs(out)
            assert count == args.pictures, f"{count} pictures came out of {args.pictures}"
            assert all(path.stat().st_mtime_ns == at for path, at in before.items()), "done again"
            # What processes that were killed took is told to nobody.
            hour = 3600 * (args.pictures - kept) / used
            kilobytes = sum(path.stat().st_size for path in out.iterdir()) / args.pictures / 1000
            quarters = [statistics.median(part) for part in np.array_split(seen, 4) if len(part)]
            print(
                f"{workers} processes: {args.pictures / (seconds + clock):.1f} pictures/s by the clock, "
                f"{hour:.0f} a core-hour; 100 million: {1e8 / hour:.0f} core-hours, "
                f"{100 * kilobytes:.0f} GB; {len(faces)} rows, {kilobytes:.2f} kB a picture; "
                "memory, medians of quarters of the run: "
                f"{', '.join(f'{value:.0f}' for value in quarters)} MB, at most {max(seen):.0f} MB"
            )


if __name__ == "__main__":
    main()
