"""Starts the page of a folder and asks it for a picture's faces; prints what /detect answers.

Run with a Python, the folder and the picture. Where it may, it first goes where there is no network but
loopback; in any case tests/browser/loopback_only refuses other connections, and any attempt is an error.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
PATIENCE = 400
CUT_OFF = ["unshare", "--map-root-user", "--net"]


def main() -> int:
    python, folder, picture = sys.argv[1:4]
    if "--cut-off" not in sys.argv and can_be_cut_off():
        return subprocess.call([*CUT_OFF, sys.executable, *sys.argv, "--cut-off"])
    if "--cut-off" in sys.argv:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory() as temporary:
        output, refused = Path(temporary, "output"), Path(temporary, "refused")
        refused.touch()
        # As on a Space: no settings but those of the place, whatever the caller's are.
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        environment = kept | {
            "SYSTEM": "spaces",
            "SPACE_ID": "me/face-keypoints",
            "CPU_CORES": "2",
            "GRADIO_SERVER_NAME": "127.0.0.1",
            "PYTHONPATH": str(HERE / "browser" / "loopback_only"),
            "LOOPBACK_ONLY_LOG": str(refused),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with output.open("wb") as file:
            page = subprocess.Popen([python, "app.py"], cwd=folder, env=environment, stdout=file, stderr=file)
        try:
            print(json.dumps(detect(wait(page, output), Path(picture))))
        finally:
            page.terminate()
            page.wait(PATIENCE)
        tried = refused.read_text()
        assert not tried, f"it tried to reach beyond this computer: {tried}"
    return 0


def can_be_cut_off() -> bool:
    """Whether this user may make a network of their own, with nothing in it."""
    if not shutil.which("unshare") or not shutil.which("ip"):
        return False
    return subprocess.call([*CUT_OFF, "ip", "link", "set", "lo", "up"], stderr=subprocess.DEVNULL) == 0


def wait(page: subprocess.Popen, output: Path) -> str:
    """The page's address, once it is ready."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and page.poll() is None:
        for line in output.read_text().splitlines():
            if line.startswith("Ready after "):
                return line.split()[4]
        time.sleep(0.2)
    raise SystemExit(f"the page did not start:\n{output.read_text()}")


def detect(address: str, picture: Path) -> dict:
    """What /detect answers, by the calls that docs/api.md describes."""
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n%s\r\n--x--\r\n'
        % (picture.name.encode(), picture.read_bytes())
    )
    (path,) = ask(f"{address}gradio_api/upload", body, "multipart/form-data; boundary=x")
    data = json.dumps({"picture": {"path": path, "meta": {"_type": "gradio.FileData"}}}).encode()
    event = ask(f"{address}gradio_api/call/v2/detect", data, "application/json")["event_id"]
    with urllib.request.urlopen(f"{address}gradio_api/call/detect/{event}", timeout=PATIENCE) as answer:
        lines = answer.read().decode().splitlines()
    assert "event: complete" in lines, lines
    return json.loads(lines[lines.index("event: complete") + 1].removeprefix("data: "))[0]


def ask(url: str, body: bytes, kind: str):
    request = urllib.request.Request(url, body, {"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


if __name__ == "__main__":
    sys.exit(main())
