"""How fast the Live tab is, in headless Chromium with a camera that shows a film of a moving face, 640×480.

    python benchmarks/live.py --write                      # docs/page.md, which tells what is measured
    python benchmarks/live.py --seconds 5 --viewers 1 2
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from playwright.sync_api import Browser, Page

from benchmarks import published
from benchmarks.published import ROOT, Table
from benchmarks.serving import chromium, served

FRAMES, RATE = 90, 30
"""Length of the film, which is repeated, and frames a second."""
BITS = 7
"""Every frame has its number at the bottom: so many squares, black or white, the lowest bit first."""
SQUARE = 24

WATCH = """() => {
  window.results = [];
  document.querySelector(".live").addEventListener("keypoints", ({ detail }) =>
    window.results.push({ latency: detail.latency, ms: detail.ms, faces: detail.faces.length }));
}"""

# Numbers of frames are read from the camera's picture, and from the picture that comes back.
WATCH_PICTURES = """([bits, square]) => {
  window.results = [];
  const canvas = document.createElement("canvas"), seen = new Map();
  [canvas.width, canvas.height] = [640, 480];
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const number = (picture) => {
    pen.drawImage(picture, 0, 0, 640, 480);
    let sum = 0;
    for (let bit = 0; bit < bits; bit++)
      sum += (pen.getImageData((bit + 0.5) * square, 480 - square / 2, 1, 1).data[0] > 127) << bit;
    return sum;
  };
  const video = document.querySelector("#camera video");
  const look = (now) => { seen.set(number(video), now); video.requestVideoFrameCallback(look); };
  video.requestVideoFrameCallback(look);
  let before = "";
  const check = () => {
    const image = document.querySelector("#drawn img");
    if (image?.complete && image.naturalWidth && image.src !== before) {
      before = image.src;
      const latency = performance.now() - seen.get(number(image));
      // The film begins again after three seconds: a number that long ago was not seen this time.
      window.results.push({ latency: latency < 2500 ? latency : NaN, ms: NaN, faces: 1 });
    }
    setTimeout(check, 4);
  };
  check();
}"""


def main() -> None:
    parser = published.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="for each number of viewers (default: 20)")
    parser.add_argument("--viewers", type=int, nargs="+", default=[1, 4], help="at once (default: 1 4)")
    parser.add_argument("--serve-alternative", action="store_true", help=argparse.SUPPRESS)
    args = published.parse(parser)
    if args.serve_alternative:
        return serve_alternative()
    table = Table(
        "way, viewers", "results a second, each", "latency p50", "p95", "of it on the server", "files written"
    )
    ways: list[tuple[str, int, Any, list[str]]]
    ways = [(f"the Live tab, {viewers}", viewers, open_live, []) for viewers in args.viewers]
    other = [__file__, "--serve-alternative"]
    ways.append(("`gr.Image(streaming=True)`, 1", 1, open_alternative, other))
    with tempfile.TemporaryDirectory() as folder:
        camera = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
        film = f"--use-file-for-fake-video-capture={write_film(Path(folder) / 'face.y4m')}"
        with chromium(*camera, film) as browser:
            for number, (title, viewers, opened, command) in enumerate(ways):
                with served(Path(folder) / str(number), *command) as page:
                    pages = [opened(browser, page.address) for _ in range(viewers)]
                    before = sum(path.is_file() for path in page.folder.rglob("*"))
                    results = watched(pages, args.seconds)
                    files = sum(path.is_file() for path in page.folder.rglob("*")) - before
                    table.add(title, *figures(results, args.seconds, files))
                    for each in pages:
                        each.context.close()
    published.publish_table(args, table, "docs/page.md", "live")


def figures(results: list[list[dict[str, Any]]], seconds: float, files: int) -> list[str]:
    """The rates of all viewers, times in ms over all of their results, and the files."""
    rates = ", ".join(f"{len(each) / seconds:.1f}" for each in results)
    latencies = [result["latency"] for each in results for result in each] or [np.nan]
    p50, p95 = np.nanpercentile(latencies, [50, 95])
    ms = np.median([result["ms"] for each in results for result in each] or [np.nan])
    server = "–" if np.isnan(ms) else f"{ms:.0f} ms"
    return [rates, f"{p50:.0f} ms", f"{p95:.0f} ms", server, str(files)]


def write_film(path: Path) -> Path:
    """A face that goes round once in three seconds, as far as 60 pixels to each side, numbered."""
    portrait = cv2.imread(str(ROOT / "examples" / "eileen_collins.jpg"))
    assert portrait is not None
    with open(path, "wb") as file:
        file.write(f"YUV4MPEG2 W640 H480 F{RATE}:1 Ip A1:1 C420jpeg\n".encode())
        for i in range(FRAMES):
            angle = 2 * np.pi * i / FRAMES
            move = np.array([[1, 0, 64 + 60 * np.sin(angle)], [0, 1, 20 * np.sin(2 * angle)]])
            frame = cv2.warpAffine(portrait, move, (640, 480), borderMode=cv2.BORDER_REPLICATE)
            for bit in range(BITS):
                frame[-SQUARE:, bit * SQUARE : (bit + 1) * SQUARE] = 255 * (i >> bit & 1)
            file.write(b"FRAME\n" + cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420).tobytes())
    return path


def opened(browser: Browser, address: str) -> Page:
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.set_default_timeout(120_000)
    page.goto(address)
    return page


def open_live(browser: Browser, address: str) -> Page:
    page = opened(browser, address)
    page.get_by_role("tab", name="Live").click()
    page.get_by_role("button", name="Start the camera").wait_for()
    page.evaluate(WATCH)
    page.get_by_role("button", name="Start the camera").click()
    return page


def open_alternative(browser: Browser, address: str) -> Page:
    page = opened(browser, address)
    page.get_by_text("Click to Access Webcam").click()
    page.get_by_text("Record", exact=True).click()
    page.locator("#drawn img").wait_for()
    page.evaluate(WATCH_PICTURES, [BITS, SQUARE])
    return page


def watched(pages: list[Page], seconds: float) -> list[list[dict[str, Any]]]:
    """The results of each page within so many seconds, once all are going."""
    for page in pages:
        page.wait_for_function("() => window.results.some((result) => result.faces > 0)")
    for page in pages:
        page.evaluate("window.results = []")
    time.sleep(seconds)
    return [page.evaluate("window.results") for page in pages]


def serve_alternative() -> None:
    """What the Live tab would be with Gradio's own streaming: pictures go both ways."""
    import gradio as gr

    import app
    from fkp import draw
    from fkp.demo import settings
    from fkp.tracking import Tracker

    model = app.load(settings.Settings())
    tracker = Tracker(model, max_faces=8)

    def detect(image: np.ndarray) -> np.ndarray:
        return draw.draw(image, tracker(image, time.monotonic()))

    with gr.Blocks(analytics_enabled=False) as page:
        webcam = gr.WebcamOptions(mirror=False)
        camera = gr.Image(sources=["webcam"], streaming=True, webcam_options=webcam, format="jpeg",
                          height=400, elem_id="camera")  # fmt: skip
        drawn = gr.Image(format="jpeg", height=400, elem_id="drawn")
        camera.stream(detect, camera, drawn, stream_every=1 / RATE, time_limit=None, show_progress="hidden")
    launching = {"quiet": True, "prevent_thread_lock": True, "ssr_mode": False}
    _, address, _ = page.queue().launch(server_name="127.0.0.1", **launching)
    print(f"Ready at {address}", flush=True)
    page.block_thread()


if __name__ == "__main__":
    main()
