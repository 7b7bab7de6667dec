"""The browser edition beside face-api.js and MediaPipe, in one Chromium: bytes, first face, times, faces.

    python benchmarks/browser.py --write              # the table of docs/browser.md
    python benchmarks/browser.py PICTURE ...          # other pictures than the examples

Needs Node, Chromium and playwright. Builds web/ and fetches the others from npm, with the models that are in
their packages, into a folder that is deleted in the end. Each runs on WebAssembly with one thread on the same
pictures, ten times after the first; MediaPipe on WebGL besides, which is emulated here. The time is that of
the browser's processes on the processor, so that what else the computer does counts little. Bytes are those
of a first visit as gzip.
"""

import contextlib
import functools
import gzip
import http.server
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from playwright.sync_api import Page

from benchmarks import published
from benchmarks.published import ROOT, Table
from benchmarks.serving import chromium

EXAMPLES = [ROOT / "examples" / f"{name}.jpg" for name in ("eileen_collins", "grace_hopper", "four_faces")]
PACKAGES = (
    "@vladmandic/face-api@1.7.15", "@tensorflow/tfjs-backend-wasm@4.22.0",
    "@mediapipe/face_mesh@0.4.1633559619",
)  # fmt: skip
REPEATS = 10

FKP = """
const { FaceKeypoints } = await import("/fkp/fkp.js");
const model = await FaceKeypoints.load(undefined, { backend: "wasm", threads: 1 });
globalThis.find = async (blob) => (await model.detect(blob)).length;
"""
FACE_API = """
const api = await import("/peer/@vladmandic/face-api/dist/face-api.esm.js");
api.tf.setWasmPaths("/peer/@tensorflow/tfjs-backend-wasm/dist/");
await api.tf.setBackend("wasm");
await api.tf.ready();
const models = "/peer/@vladmandic/face-api/model";
await Promise.all([api.nets.NETWORK.loadFromUri(models), api.nets.faceLandmark68Net.loadFromUri(models)]);
globalThis.find = async (blob) => {
  const image = new Image();
  image.src = URL.createObjectURL(blob);
  await image.decode();
  return (await api.detectAllFaces(image, new api.OPTIONS()).withFaceLandmarks()).length;
};
"""
TINY = FACE_API.replace("NETWORK", "tinyFaceDetector").replace("OPTIONS", "TinyFaceDetectorOptions")
SSD = FACE_API.replace("NETWORK", "ssdMobilenetv1").replace("OPTIONS", "SsdMobilenetv1Options")
# The one that @mediapipe/tasks-vision came after, whose models are in no package.
MEDIAPIPE = """
const script = document.createElement("script");
script.src = "/peer/@mediapipe/face_mesh/face_mesh.js";
document.head.append(script);
await new Promise((loaded) => { script.onload = loaded; });
const mesh = new FaceMesh({ locateFile: (name) => `/peer/@mediapipe/face_mesh/${name}` });
mesh.setOptions({ maxNumFaces: 10 });
let found;
mesh.onResults((results) => { found = results.multiFaceLandmarks.length; });
globalThis.find = async (blob) => {
  const image = new Image();
  image.src = URL.createObjectURL(blob);
  await image.decode();
  mesh.reset();  // else it follows the faces of the picture before
  await mesh.send({ image });
  return found;
};
"""
FLOAT32 = FKP.replace("threads: 1", "threads: 1, int8: false")
CONTENDERS = {
    "fkp": FKP, "fkp in float32": FLOAT32, "face-api.js, tiny detector": TINY, "face-api.js, SSD": SSD,
    "MediaPipe Face Mesh": MEDIAPIPE,
}  # fmt: skip


class _Handler(http.server.SimpleHTTPRequestHandler):
    asked: list[str] = []
    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

    def do_GET(self) -> None:
        self.asked.append(self.translate_path(self.path))
        super().do_GET()

    def log_message(self, *args: Any) -> None:
        pass


def processor_seconds() -> tuple[float, float, float]:
    """Of all processors so far: in all, idle, and those of this process and its descendants (Linux)."""
    ticks = [int(number) for number in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    used, children = {}, defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            fields = path.read_text().rpartition(")")[2].split()
            used[int(path.parent.name)] = sum(map(int, fields[11:15]))
            children[int(fields[1])].append(int(path.parent.name))
    ours, waiting = 0, [os.getpid()]
    while waiting:
        process = waiting.pop()
        ours += used.get(process, 0)
        waiting += children[process]
    second = os.sysconf("SC_CLK_TCK")
    return sum(ticks) / second, (ticks[3] + ticks[4]) / second, ours / second


def measure(page: Page, script: str, pictures: list[Path]) -> dict[str, Any]:
    """What one contender does on a page of its own: faces by picture, and seconds on the processor."""
    _Handler.asked.clear()
    began = processor_seconds()[2]
    page.evaluate(f"(async () => {{ {script} }})()")
    found, times, first = [], [], 0.0
    for number in range(len(pictures)):
        run = f"fetch('/pictures/{number}').then(answer => answer.blob()).then(find)"
        found.append(page.evaluate(run))
        if number == 0:
            first = processor_seconds()[2] - began
        again = f"""(async () => {{
            const blob = await (await fetch("/pictures/{number}")).blob();
            for (let i = 0; i < {REPEATS}; i++) await find(blob);
        }})()"""
        before = processor_seconds()[2]
        page.evaluate(again)
        times.append((processor_seconds()[2] - before) / REPEATS)
    fetched = {Path(name) for name in _Handler.asked if "/pictures/" not in name and "blank" not in name}
    size = sum(len(gzip.compress(path.read_bytes(), 6)) for path in fetched if path.is_file())
    return {"MB": size / 1e6, "first": first, "ms": [1e3 * each for each in times], "faces": found}


def main() -> None:
    parser = published.parser(__doc__)
    parser.add_argument("pictures", nargs="*", type=Path, metavar="PICTURE", default=EXAMPLES)
    args = published.parse(parser)
    if shutil.which("npm") is None:
        parser.exit(1, "browser.py: needs npm\n")
    web = ROOT / "web"
    if not (web / "node_modules").is_dir():
        subprocess.run(["npm", "ci", "--silent"], cwd=web, check=True)
    subprocess.run(["npm", "run", "build", "--silent"], cwd=web, check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as temporary, chromium() as browser:
        folder = Path(temporary)
        (folder / "package.json").write_text("{}")
        subprocess.run(["npm", "install", "--silent", "--no-save", *PACKAGES], cwd=folder, check=True)
        (folder / "node_modules").rename(folder / "peer")
        shutil.copytree(web / "dist", folder / "fkp")
        (folder / "blank.html").write_text("<!doctype html>")
        (folder / "pictures").mkdir()
        for number, path in enumerate(args.pictures):
            shutil.copyfile(path, folder / "pictures" / str(number))
        handler = functools.partial(_Handler, directory=temporary)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        head = "MB as gzip", "first face, s", "ms a picture", "faces found"
        table = Table(f"Chromium {browser.version}", *head)
        for name, script in CONTENDERS.items():
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{server.server_port}/blank.html")
            got = measure(page, script, args.pictures)
            page.close()
            times, faces = (", ".join(f"{each:.0f}" for each in got[key]) for key in ("ms", "faces"))
            table.add(name, f"{got['MB']:.1f}", f"{got['first']:.1f}", times, faces)
        server.shutdown()
    published.publish_table(args, table, "docs/browser.md", "browser")


if __name__ == "__main__":
    main()
