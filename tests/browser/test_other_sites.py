"""The page of another site, in the same browser: it may call nothing of this page, and show it in a frame
only where that is a Hugging Face Space and the site is Hugging Face."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.conftest import PATIENCE_MS, refusals, serving

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


def show_framed(page: Page, site: str, address: str) -> None:
    """Show a page of a site that has nothing but a frame with ours."""
    frame = f'<iframe id="page" src="{address}" width=900 height=900></iframe>'
    page.route(f"{site}/**", lambda route: route.fulfill(body=frame, content_type="text/html"))
    page.goto(f"{site}/spaces/someone/demo")


def test_a_hugging_face_space_works_in_the_frame_of_hugging_face_alone(browser, root, tmp_path):
    with serving(root, tmp_path, FKP_HOSTS="someone-demo.hf.space") as address:
        page = browser.new_context().new_page()
        refused, answers = refusals(page), []
        page.on("response", lambda response: answers.append((response.url, response.status)))
        show_framed(page, "https://huggingface.co", address)
        frame = page.frame_locator("#page")
        frame.get_by_role("button", name="Try the example Grace Hopper").click(timeout=PATIENCE_MS)
        frame.get_by_text("Found 1 face").wait_for(timeout=PATIENCE_MS)
        assert {status for url, status in answers if "/gradio_api/" in url} == {200} and not refused
        page.context.close()
        expect_no_frame(browser, "https://huggingface.example", address)


def test_elsewhere_no_site_shows_the_page_in_a_frame(browser, address):
    expect_no_frame(browser, "https://huggingface.co", address)


def expect_no_frame(browser: Browser, site: str, address: str) -> None:
    page = browser.new_context().new_page()
    refused = refusals(page)
    show_framed(page, site, address)
    page.wait_for_timeout(1000)
    assert page.frame_locator("#page").locator("#head").count() == 0
    assert len(refused) == 1 and "frame-ancestors" in refused[0]
    page.context.close()


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
