"""The page of another site, in the same browser: it may show this page in a frame, and call nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

FORM = """<form id="f" method="post" enctype="multipart/form-data" target="t"
action="{address}gradio_api/upload"><input name="files" value="x"></form><iframe name="t"></iframe>"""

CALL = """async ([address, kind]) => {
  const options = {method: "POST", headers: {"Content-Type": kind}, body: '{"data": [null]}'};
  const seen = async (more) => {
    try {
      return String((await fetch(`${address}gradio_api/call/detect`, {...options, ...more})).status);
    } catch (error) {
      return error.name;
    }
  };
  return [await seen({}), await seen({mode: "no-cors"})];
}"""

PICTURE = """(address) => new Promise((resolve) => {
  const picture = new Image();
  picture.onload = picture.onerror = (event) => resolve(event.type);
  picture.src = `${address}favicon.ico`;
})"""


@pytest.fixture
def other_site(tmp_path: Path, address: str) -> Iterator[str]:
    """Another name and port: for browsers another site, though it is this computer."""
    (tmp_path / "index.html").write_text(f'<iframe id="page" src="{address}" width=900 height=900></iframe>')
    (tmp_path / "form.html").write_text(FORM.format(address=address))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def tab(browser, other_site):
    """A tab at the other site, and the answers that came to it."""
    context = browser.new_context()
    page = context.new_page()
    answers: list[tuple[str, int]] = []
    page.on("response", lambda response: answers.append((response.url, response.status)))
    page.goto(other_site)
    yield page, answers
    context.close()


def test_a_frame_works_as_on_a_hugging_face_space(tab):
    page, answers = tab
    frame = page.frame_locator("#page")
    frame.get_by_role("button", name="Try the example Grace hopper").click()
    frame.get_by_text("Found 1 face").wait_for()
    assert {status for url, status in answers if "/gradio_api/" in url} == {200}


@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
def test_a_script_can_call_nothing(tab, address, kind):
    """Neither with leave, which is not given, nor as a simple request, whose answer it could not read."""
    page, answers = tab
    seen = page.evaluate(CALL, [address, kind])
    assert seen[0] == "TypeError"
    calls = [status for url, status in answers if "/call/detect" in url]
    assert calls and set(calls) == {403}


def test_a_form_can_upload_nothing(tab, address, other_site):
    page, answers = tab
    page.goto(f"{other_site}form.html")
    with page.expect_response(lambda response: "/upload" in response.url) as sent:
        page.evaluate("document.querySelector('#f').submit()")
    assert sent.value.status == 403


def test_pictures_of_ours_are_not_shown_elsewhere(tab, address):
    page, _ = tab
    assert page.evaluate(PICTURE, address) == "error"
    page.goto(address)
    assert page.evaluate(PICTURE, address) == "load"
