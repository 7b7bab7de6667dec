"""What the request guard lets in, and that refusals are sentences; the app behind it is made up."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from starlette.requests import ClientDisconnect

from fkp.demo import request_guard, uploads

RULES = request_guard.Rules({"detect", "annotate"}, max_bytes=1000)
PLAIN = [(b"content-type", b"text/plain; charset=utf-8")]


def answering(status=200, headers=PLAIN, body=b"fine", error=None):
    """An app that reads all it is sent, then answers, then perhaps fails."""

    async def app(scope, receive, send):
        if scope["type"] == "http":
            while (await receive()).get("more_body"):
                pass
            if status:
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": body})
            if error:
                raise error
        else:
            await send({"type": "websocket.accept"})

    return app


def visit(app, path="/", headers=(), body=(b"",), kind="http", rules=RULES):
    """What comes out of the guard: status, body, and the headers."""
    sent, parts = [], list(body)

    async def receive():
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message):
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in dict(headers).items()]
    scope = {"type": kind, "method": "POST", "path": path, "headers": raw}
    asyncio.run(request_guard.RequestGuard(app, rules)(scope, receive, send))
    if kind == "websocket":
        return sent[0]["type"]
    assert [message["type"] for message in sent].count("http.response.start") == 1
    assert sent[-1]["type"] == "http.response.body" and not sent[-1].get("more_body")
    content = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], content.decode(), dict(sent[0]["headers"])


def sentence(*args, **options):
    status, body, headers = visit(*args, **options)
    assert headers[b"content-length"] == str(len(body)).encode()
    return status, json.loads(body)["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/config",
        "/gradio_api/upload",
        "/gradio_api/queue/join",
        "/gradio_api/call/detect",
        "/gradio_api/call/v2/annotate/",
        "/gradio_api/call/detect/0123",
        "/gradio_api/file=/tmp/fkp-1/a.png",
        "/gradio_api/info",
        "/gradio_api/heartbeat/x",
        "/behind/a/proxy/gradio_api/call/detect",
        "/rundown",
    ],
)
def test_requests_of_the_page_and_of_programs_pass(path):
    assert visit(answering(), path)[:2] == (200, "fine")


@pytest.mark.parametrize(
    "path", ["call/find", "call/v2/save", "call/", "call/v2/", "call/detect2", "call/Detect"]
)
def test_endpoints_are_called_by_name_only_where_they_are_public(path):
    told = "There is no endpoint of this name. Those that can be called are /annotate and /detect."
    assert sentence(answering(), f"/gradio_api/{path}") == (404, told)


@pytest.mark.parametrize(
    "route",
    [
        "run/detect",
        "api/predict/",
        "proxy=http://a/",
        "dev/reload",
        "deep_link",
        "process_recording",
        "custom_component/a/client/b/c",
        "runs",
        "run-history/buckets",
        "file=http://169.254.169.254/",
        "file/https://a",
        "file=File:///etc/passwd",
    ],
)
def test_routes_that_the_page_has_no_use_for_are_closed(route):
    assert sentence(answering(), f"/gradio_api/{route}") == (404, "There is nothing here.")


def test_origins_of_other_sites_are_refused():
    headers = {"host": "a", "origin": "https://b"}
    assert sentence(answering(), headers=headers)[0] == 403
    assert visit(answering(), headers=headers, kind="websocket") == "websocket.close"
    assert visit(answering(), headers={"host": "a"}, kind="websocket") == "websocket.accept"
    assert visit(answering(), headers={"host": "b", "origin": "https://b"})[0] == 200
    strict = request_guard.Rules(set(), 9, at_home=True)
    assert "does not answer to the name 'b'" in sentence(answering(), headers={"host": "b"}, rules=strict)[1]


def test_size_limit_holds_whatever_is_announced():
    told = (413, "That is too much: a request may bring along 0.0 MB at most.")
    assert sentence(answering(), headers={"content-length": "1001"}) == told
    assert visit(answering(), headers={"content-length": "1000"}, body=[bytes(600), bytes(400)])[0] == 200
    assert sentence(answering(), body=[bytes(600), bytes(401), bytes(9)]) == told


def test_calls_of_the_pages_own_functions_are_small_and_of_one_session():
    """Whatever session they name: Gradio would keep one for each."""
    path, got = "/gradio_api/component_server/", []

    async def app(scope, receive, send):
        got.append(await receive())
        await answering(200)(scope, lambda: asyncio.sleep(0, {}), send)

    rules = request_guard.Rules(set(), max_bytes=1000, small_bytes=100)
    assert sentence(app, path, body=[bytes(99), bytes(2)], rules=rules)[0] == 413
    assert sentence(app, path.rstrip("/"), headers={"content-length": "101"}, rules=rules)[0] == 413
    assert sentence(app, path, headers={"content-type": "multipart/form-data"}, rules=rules)[0] == 413
    assert visit(app, "/", body=[bytes(500)], rules=rules)[0] == 200 and got.pop()["body"] == bytes(500)
    for name in ("a", "b"):
        call = json.dumps({"data": 1, "session_hash": name}).encode()
        assert visit(app, path, body=[call[:5], call[5:]], rules=rules)[0] == 200
        assert json.loads(got.pop()["body"]) == {"data": 1, "session_hash": "live"}


def test_a_body_that_comes_too_slowly_is_told(monkeypatch):
    monkeypatch.setattr(request_guard, "BODY_SECONDS", 0.05)

    async def slow():
        sent = []

        async def receive():
            await asyncio.sleep(10)

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/gradio_api/upload", "headers": []}
        await request_guard.RequestGuard(answering(), RULES)(scope, receive, send)
        return sent

    assert asyncio.run(slow())[0]["status"] == 408


def test_uploads_end_where_the_disk_is_full():
    left = [1000]
    rules = request_guard.Rules(set(), max_bytes=1000, room=lambda: left[0])
    some = {"content-length": "5"}
    assert visit(answering(), "/gradio_api/upload", some, rules=rules)[0] == 200
    left[0] = 0
    assert sentence(answering(), "/gradio_api/upload", some, rules=rules)[0] == 507
    assert visit(answering(), "/", rules=rules)[0] == 200


def test_uploads_at_once_share_the_room_that_is_left(monkeypatch):
    """Eight that began together wrote eight times what the disk was to hold."""
    monkeypatch.setattr(uploads, "MEASURE_SECONDS", 0.02)
    assert at_once("/gradio_api/upload") == ([200, 200, 200, 507, 507], 507, 200)


def test_calls_at_once_share_the_memory_there_is(monkeypatch):
    """Forty with a picture of 65 MB each within them took four gigabytes."""
    monkeypatch.setattr(request_guard, "BODIES_AT_ONCE", 1000)
    monkeypatch.setattr(request_guard, "BODY_KEPT", 0.04)
    assert at_once("/gradio_api/call/detect") == ([200, 200, 200, 503, 503], 503, 200)


def at_once(path):
    """Statuses of requests that come together, of one right after them, and of one later.

    There is room for 1000 bytes: they bring 400, 400, 400, 300 that are not announced, 150; 400; 400. One
    that was announced before all of them, and never came, keeps nobody out.
    """
    rules = request_guard.Rules({"detect"}, max_bytes=1000, small_bytes=10, room=lambda: 1000)

    async def several():
        gate = asyncio.Event()
        guard = request_guard.RequestGuard(answering(), rules)

        async def begin(length: int, chunked: bool = False, comes: bool = True) -> int:
            sent, parts = [], [bytes(length // 2)] * 2

            async def receive():
                part = parts.pop()
                if not parts:
                    await (gate if comes else asyncio.Event()).wait()
                return {"type": "http.request", "body": part if comes else b"", "more_body": bool(parts)}

            async def send(message):
                sent.append(message)

            known = [(b"content-length", str(length).encode())]
            headers = [(b"transfer-encoding", b"chunked")] if chunked else known
            scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
            await guard(scope, receive, send)
            return sent[0]["status"]

        slow = asyncio.create_task(begin(1000, comes=False))
        await asyncio.sleep(0)
        begun = [asyncio.create_task(begin(*how)) for how in ((400,), (400,), (400,), (300, True), (150,))]
        await asyncio.sleep(0.01)
        gate.set()
        statuses = await asyncio.gather(*begun)
        soon = await begin(400)
        await asyncio.sleep(0.05)
        later = await begin(400)
        slow.cancel()
        return sorted(statuses), soon, later

    return asyncio.run(several())


def test_headers_of_every_answer_say_what_browsers_may_do():
    """On Hugging Face Spaces the page stands in a frame."""
    _, _, headers = visit(answering())
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert b"frame-ancestors 'self'" in headers[b"content-security-policy"]
    assert b"hf.space" not in headers[b"content-security-policy"]
    space = request_guard.Rules(set(), 1000, hosts=("owner-name.hf.space",))
    _, _, headers = visit(answering(), rules=space)
    assert b"https://huggingface.co" in headers[b"content-security-policy"]


def test_size_refusal_is_told_by_whatever_notices_first():
    async def app(scope, receive, send):
        try:
            while (await receive()).get("more_body"):
                pass
        except Exception:  # as FastAPI does
            await answering(400)(scope, lambda: asyncio.sleep(0, {}), send)

    assert sentence(app, body=[bytes(1001)])[0] == 413


def test_a_full_queue_is_a_sentence():
    status, body, headers = visit(answering(503, body=b"Queue is full."))
    assert status == 503 and json.loads(body)["detail"] == request_guard.BUSY and headers[b"retry-after"]


@pytest.mark.parametrize(
    "raised, told",
    [
        ("No value provided for required argument: picture", "picture is needed."),
        ("Parameter `depth` is not a valid key-word argument.", "There is no parameter depth."),
    ],
)
def test_parameters_that_do_not_fit_are_told_by_name_and_not_printed(capsys, raised, told):
    assert sentence(answering(500, body=b"Internal Server Error", error=TypeError(raised))) == (400, told)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "error, status, told",
    [
        (KeyError("/nothing"), 400, request_guard.NOT_UNDERSTOOD),
        (TypeError("missing argument"), 400, request_guard.NOT_UNDERSTOOD),
        (RuntimeError("of the server's own"), 500, request_guard.FAILED),
    ],
)
def test_internal_errors_are_sentences_and_printed_for_the_owner(capsys, error, status, told):
    """As Starlette has it: an answer of its own first, then the error is raised again."""
    assert sentence(answering(500, body=b"Internal Server Error", error=error)) == (status, told)
    assert sentence(answering(None, error=error)) == (status, told)
    assert capsys.readouterr().err.count(type(error).__name__) == 2
    assert sentence(answering(500, body=b"Internal Server Error")) == (500, request_guard.FAILED)


def test_an_error_of_the_api_stays_as_it_is():
    headers = [(b"content-type", b"application/json")]
    assert visit(answering(500, headers, b'{"error": "No."}'))[:2] == (500, '{"error": "No."}')


def test_stream_that_breaks_off_is_ended(capsys):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"data: 1", "more_body": True})
        raise RuntimeError("the rest is gone")

    assert visit(app)[:2] == (200, "data: 1")
    assert "the rest is gone" in capsys.readouterr().err


@pytest.mark.parametrize("status", [None, 500])
def test_a_browser_that_ends_what_it_sends_is_no_error(capsys, status):
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    app = answering(status, error=ClientDisconnect())
    scope = {"type": "http", "method": "POST", "path": "/gradio_api/upload", "headers": []}
    asyncio.run(request_guard.RequestGuard(app, RULES)(scope, receive, send))
    assert sent == [] and capsys.readouterr().err == ""


def test_the_app_is_guarded_as_soon_as_it_lives():
    order = []

    @asynccontextmanager
    async def inner(app):
        order.append(type(app.middleware_stack))
        yield

    async def live(app):
        async with request_guard.guarded(inner, RULES)(app):
            order.append("lives")

    app = SimpleNamespace(middleware_stack=answering())
    asyncio.run(live(app))
    assert order == [request_guard.RequestGuard, "lives"]
