"""Bad input through the API and the page's own events: a clear answer, nothing leaks, and the page goes on.

What is sent, and what is to be answered, stands in bad_inputs.py.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import gradio
import httpx
import pytest

from tests import bad_inputs
from tests.bad_inputs import Sender

CASES = list(bad_inputs.cases())
LIMITS = {"FKP_MAX_PIXELS": "50000000", "FKP_MAX_CLIP_SIZE": "1mb"}


@pytest.fixture(scope="module")
def served(tmp_path_factory, root):
    """The page, around a stand-in for the model, in a process of its own."""
    folder = tmp_path_factory.mktemp("uploads")
    command = [sys.executable, str(root / "tests" / "serve_stand_in.py"), str(folder)]
    log = tmp_path_factory.mktemp("log") / "stderr.txt"
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=os.environ | LIMITS,
        ) as process,
    ):
        address = next(line.strip() for line in process.stdout if line.startswith("http://127.0.0.1:"))
        yield SimpleNamespace(address=address, folder=folder, process=process)
        process.communicate("\n", timeout=30)
    assert process.returncode == 0


@pytest.fixture(scope="module")
def to(served):
    with Sender(served.address) as sender:
        yield sender


def goes_on(to: Sender) -> None:
    """A good picture is answered; it may have been uploaded before."""
    path = goes_on.path or to.upload(bad_inputs.good(), "holiday.jpg").json()[0]
    assert re.search(bad_inputs.ANSWERED, to.detect({"path": path}).told)
    goes_on.path = path


goes_on.path = ""


@pytest.mark.parametrize("case", CASES, ids=[f"{case.group}: {case.what}" for case in CASES])
def test_bad_input_is_answered_clearly_and_the_page_goes_on(served, to, root, case):
    given = case.send(to)
    assert re.search(case.expected, given.told), given.told
    # Nothing of the server: neither a file's content nor where anything lies, nor its own errors.
    inside = [
        str(root),
        str(served.folder),
        sys.prefix,
        str(Path(gradio.__file__).parent),
        tempfile.gettempdir(),
    ]
    for trace in ("Traceback", 'File "', "site-packages", ".py", "root:x:", "PATH=", *inside):
        assert trace not in given.everything.replace("..%2Fapp.py", ""), trace
    goes_on(to)


def test_addresses_are_not_fetched(to):
    """A server beside it, which would count what comes; all ways to name it, and a way round by redirects."""
    came = []

    class Beside(BaseHTTPRequestHandler):
        def do_GET(self):
            came.append(self.path)
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/")
            self.end_headers()

        do_HEAD = do_POST = do_GET

        def log_message(self, *_):
            pass

    beside = ThreadingHTTPServer(("127.0.0.1", 0), Beside)
    Thread(target=beside.serve_forever, daemon=True).start()
    try:
        port = beside.server_port
        httpx.get(f"http://127.0.0.1:{port}/works", trust_env=False)
        for host in (
            "127.0.0.1",
            "localhost",
            "0.0.0.0",
            "2130706433",
            "127.1",
            "0x7f000001",
            "[::ffff:127.0.0.1]",
        ):
            url = f"http://{host}:{port}/{host}.png"
            marked = {"meta": {"_type": "gradio.FileData"}}
            for value in ({"url": url}, {"path": url} | marked, {"path": url, "url": url} | marked, url):
                to.detect(value)
            to.event("find", {"paths": [{"path": url} | marked]}, ["points"], 1)
            for route in ("file", "proxy", "file/"):
                to.request("GET", f"gradio_api/{route}={url}")
    finally:
        beside.shutdown()
        beside.server_close()
    assert came == ["/works"]
    goes_on(to)


def test_an_upload_can_be_read_by_who_knows_its_path_and_by_nobody_else(served, to):
    """The path holds a digest of the content; neither folders nor parts of the path tell of others."""
    (path,) = to.upload(bad_inputs.good("PNG"), "mine.png").json()
    assert to.client.get(f"gradio_api/file={path}").content == bad_inputs.good("PNG")
    folder, _, _ = path.rpartition("/")
    for other in (
        folder,
        folder.rpartition("/")[0],
        f"{folder}/*",
        f"{folder}/other.png",
        f"{folder[:-1]}{'10'[folder[-1] != '0']}/mine.png",
    ):
        assert to.client.get(f"gradio_api/file={other}").status_code == 403
        assert re.search("no longer here|no uploaded file", to.detect({"path": other}).told)


def test_svg_and_html_are_never_shown_as_pages(to):
    """Only downloaded: they would run scripts as the page itself."""
    for name in ("a.svg", "a.html", "a.xml", "a.js"):
        (path,) = to.upload(b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", name).json()
        headers = to.client.get(f"gradio_api/file={path}").headers
        assert headers["content-disposition"].startswith("attachment")
        assert headers["content-type"] == "application/octet-stream"


def test_refusals_allow_other_sites_nothing(to):
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for method in ("OPTIONS", "GET", "POST"):
        response = to.client.request(method, "gradio_api/call/detect", headers=headers)
        assert response.status_code == 403
        assert not [name for name in response.headers if name.startswith("access-control-")]


def test_the_page_itself_is_no_other_site(to):
    """With the headers that browsers send, at home, and behind a proxy as a Hugging Face Space is."""
    own = {"Origin": f"http://{to.host}", "Sec-Fetch-Site": "same-origin"}
    assert to.upload(bad_inputs.good(), headers=own).status_code == 200
    frame = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
    assert to.client.get("", headers=frame).status_code == 200
    space = {"X-Forwarded-Host": "owner-name.hf.space", "Origin": "https://owner-name.hf.space"}
    assert to.upload(bad_inputs.good(), headers=space).status_code == 200


def test_connections_left_hanging_do_not_stop_others(served, to):
    host, port = to.host.split(":")
    requests = [
        b"GET /gradio_api/heartbeat/left HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /gradio_api/queue/data?session_hash=left HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\nContent-Disposition: form-data; "
        b"name=files; filename=half.jpg\r\n\r\nhalf",
        b"POST /gradio_api/call/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n{",
        b"GET / HT",
        b"",
    ]
    left = []
    try:
        for request in requests * 20:
            left.append(socket.create_connection((host, int(port)), timeout=30))
            left[-1].sendall(request)
        goes_on(to)
        before = len(to.client.get("config").content)
    finally:
        for connection in left:
            connection.close()
    goes_on(to)
    assert len(to.client.get("config").content) == before


def test_answers_that_nobody_fetches_are_dropped(served, to):
    """They wait in the queue no longer than others, and nothing is left of them."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: to.client.post("gradio_api/call/detect", json={"data": [None]}), range(40)))
    goes_on(to)
    served.process.stdin.write("expire\n")
    served.process.stdin.flush()
    assert served.process.stdout.readline() == "0 0\n"
    goes_on.path = ""
    goes_on(to)
