"""How fast the page is: start, requests, a photo of 12 megapixels in a browser, and several callers at once.

    python benchmarks/page.py --write             # the table of docs/page.md
    python benchmarks/page.py --seconds 2         # a quick trial
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from gradio_client import Client, handle_file
from PIL import Image

from benchmarks import published, serving
from benchmarks.published import ROOT, Table
from fkp import FaceKeypoints, images
from fkp.demo import batching

PHOTO = ROOT / "examples" / "four_faces.jpg"
MEGAPIXELS_12 = (4000, 3000)
CALLERS = (1, 4, 16)


def main() -> None:
    parser = published.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="for each number of callers (default: 10)")
    args = published.parse(parser)
    table = Table("what", "")
    with tempfile.TemporaryDirectory() as folder, serving.served(Path(folder)) as page:
        table.add("start to ready, imports included", f"{page.seconds:.1f} s")
        table.add("start to ready after imports", f"{page.said.split()[2]} s")
        single_requests(table, page.address)
        for callers in CALLERS:
            many_requests(table, page.address, callers, args.seconds)
        in_a_browser(table, page.address, Path(folder))
    for callers in CALLERS[1:]:
        shared_runs(table, callers, args.seconds / 4)
    published.publish_table(args, table, "docs/page.md", "page")


def single_requests(table: Table, address: str) -> None:
    """The first request and later ones, of the same client."""
    client = Client(address, verbose=False)
    times = [timed(lambda: client.predict(handle_file(PHOTO), api_name="/detect")) for _ in range(20)]
    table.add("/detect, 840×840, 4 faces: first request", f"{1e3 * times[0]:.0f} ms")
    table.add("the same: median of the 10th to 20th", f"{1e3 * statistics.median(times[9:]):.0f} ms")


def many_requests(table: Table, address: str, callers: int, seconds: float) -> None:
    """So many callers, each with its next request as soon as the last is answered."""
    clients = [Client(address, verbose=False) for _ in range(callers)]
    began = time.perf_counter()

    def call(client: Client) -> list[float]:
        times: list[float] = []
        while not times or time.perf_counter() < began + seconds:
            times.append(timed(lambda: client.predict(handle_file(PHOTO), api_name="/detect")))
        return times

    with ThreadPoolExecutor(callers) as pool:
        times = sorted(1e3 * t for some in pool.map(call, clients) for t in some)
    p50, p95 = np.percentile(times, [50, 95])
    rate = len(times) / (time.perf_counter() - began)
    table.add(f"/detect, {callers} at once", f"{rate:.1f} requests/s, p50 {p50:.0f} ms, p95 {p95:.0f} ms")


def in_a_browser(table: Table, address: str, folder: Path) -> None:
    """What a visitor waits for with a photo of 12 megapixels: from choosing the file to what is seen."""
    large = folder / "large.jpg"
    Image.fromarray(cv2.resize(images.read(PHOTO), MEGAPIXELS_12)).save(large, quality=95)
    with serving.chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address)
        page.get_by_text("Drop photos here").wait_for()
        overlay = "document.querySelector('#result .overlay')"

        def changed(act: Callable[[], None]) -> float:
            """Seconds until another overlay is there and decoded."""
            before = page.evaluate(f"{overlay}.src")
            began = time.perf_counter()
            act()
            page.wait_for_function(f"before => {overlay}.src !== before && {overlay}.complete", arg=before)
            return time.perf_counter() - began

        def choose() -> None:
            page.locator("#photo input[type=file]").set_input_files(large)

        photos = []
        for _ in range(5):
            photos.append(changed(choose))
            page.get_by_role("button", name="Clear", exact=True).click()
            page.locator("#result .viewer").wait_for(state="hidden")
        table.add("photo of 12 megapixels, 4 faces: chosen to shown, first", f"{photos[0]:.2f} s")
        table.add("the same: median of 5", f"{statistics.median(photos):.2f} s")
        choose()
        page.locator("#face h2").wait_for()
        options = [page.get_by_label(name, exact=True) for name in ("Mesh", "Boxes", "Contours")]
        again = [changed(option.click) for option in options]
        table.add("drawn again with another option, median", f"{statistics.median(again):.2f} s")
        began = time.perf_counter()
        with page.expect_download() as download:
            page.get_by_role("button", name="Save picture", exact=True).click()
        download.value.path()
        table.add("its PNG at full size, made and downloaded", f"{time.perf_counter() - began:.2f} s")
        page.get_by_role("button", name="Clear", exact=True).click()
        page.locator("#result .viewer").wait_for(state="hidden")

        page.get_by_role("tab", name="Video").click()
        began = time.perf_counter()
        page.locator("#clip [data-example]").click()
        page.locator("#clip-answer .far").wait_for()
        page.get_by_role("tab", name="Photo").click()
        table.add("the same photo while a clip is worked on: chosen to shown", f"{changed(choose):.2f} s")
        page.get_by_role("tab", name="Video").click()
        film = "document.querySelector('.film')?.readyState >= HTMLMediaElement.HAVE_FUTURE_DATA"
        page.wait_for_function(film, timeout=300_000)
        what = "clip of 6 s, 150 frames of 480×360, 2 faces: clicked to ready to play, that photo included"
        table.add(what, f"{time.perf_counter() - began:.1f} s")


def shared_runs(table: Table, threads: int, seconds: float) -> None:
    """Faces per second of the keypoint network alone, called by several threads, shared and not."""
    alone = FaceKeypoints.from_pretrained()
    image = images.read(PHOTO)
    boxes = alone(image).boxes[:1]

    def rate(model: FaceKeypoints) -> float:
        end = time.perf_counter() + seconds

        def call(_: int) -> int:
            done = 0
            while time.perf_counter() < end:
                model.keypoints_at(image, boxes)
                done += 1
            return done

        with ThreadPoolExecutor(threads) as pool:
            return sum(pool.map(call, range(threads))) / seconds

    rate(alone)  # warm
    by_itself, shared = rate(alone), rate(alone.with_runner(batching.Shared))
    what = f"keypoints of one face a call, {threads} threads: each for itself → runs shared"
    table.add(what, f"{by_itself:.0f} → {shared:.0f} faces/s")


def timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
