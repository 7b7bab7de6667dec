"""What the page answers to what is no picture, no request, or none of the caller's business.

tests/test_abuse.py sends all of it to a page, and looks at each answer.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from PIL import Image

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Given:
    """What was answered: the sentence, or the result as JSON; the HTTP status; and all of it as text."""

    told: str
    status: int
    everything: str


@dataclass(frozen=True)
class Case:
    """Something bad: what it is, how it is sent, and a pattern of the sentence that is to come back."""

    group: str
    what: str
    send: Send
    expected: str


class Sender:
    """Talks to a page at an address."""

    def __init__(self, address: str) -> None:
        self.client = httpx.Client(base_url=address, timeout=httpx.Timeout(120), trust_env=False)
        self.host = httpx.URL(address).netloc.decode()
        self._functions: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def request(self, method: str, path: str, **options: Any) -> Given:
        """Any request; the sentence is the `detail` or `error` of its answer, or all of it."""
        response = self.client.request(method, path, **options)
        return Given(_sentence(response.text), response.status_code, _all(response))

    def upload(self, content: bytes, name: str = "photo.jpg", **options: Any) -> httpx.Response:
        return self.client.post("gradio_api/upload", files={"files": (name, content)}, **options)

    def file(self, content: bytes, name: str = "photo.jpg") -> Given:
        """A file, uploaded and then given to /detect."""
        response = self.upload(content, name)
        if response.is_error:
            return Given(_sentence(response.text), response.status_code, _all(response))
        (path,) = response.json()
        return self.detect({"path": path, "meta": {"_type": "gradio.FileData"}})

    def detect(self, *data: Any, **more: Any) -> Given:
        """/detect, with anything as its input; a picture alone goes with usual values for the rest."""
        usual = [0.5, 10, "auto", "none"] if len(data) == 1 else []
        return self.call({"data": [*data, *usual]} | more)

    def call(self, body: Any, endpoint: str = "call/detect") -> Given:
        started = self.client.post(f"gradio_api/{endpoint}", content=json.dumps(body), headers=JSON)
        if started.is_error:
            return Given(_sentence(started.text), started.status_code, _all(started))
        ended = self.client.get(f"gradio_api/call/detect/{started.json()['event_id']}")
        return Given(_sentence(ended.text), ended.status_code, _all(started) + _all(ended))

    def event(self, name: str, *data: Any, event: Any = None) -> Given:
        """One of the page's own functions, called by its number as browsers do."""
        number, inputs = self._function(name)
        session = f"bad-{np.random.default_rng().integers(1 << 60)}"
        body = {"data": [None, *data][:inputs] if data else [], "fn_index": number, "event_data": event}
        joined = self.client.post("gradio_api/queue/join", json=body | {"session_hash": session})
        if joined.is_error:
            return Given(_sentence(joined.text), joined.status_code, _all(joined))
        with self.client.stream("GET", "gradio_api/queue/data", params={"session_hash": session}) as lines:
            messages = [json.loads(line[6:]) for line in _until_completed(lines.iter_lines())]
        output = messages[-1]["output"]
        everything = json.dumps(messages)
        return Given(str(output["error"] if "error" in output else output["data"]), 200, everything)

    def _function(self, name: str) -> tuple[int, int]:
        """The number of the page's function of a name, and how many inputs it has."""
        if not self._functions:
            for each in self.client.get("config").json()["dependencies"]:
                self._functions[each["api_name"]] = (each["id"], len(each["inputs"]))
        return self._functions[name]


def _until_completed(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if line.startswith("data: "):
            yield line
            if '"process_completed"' in line:
                return


def _all(response: httpx.Response) -> str:
    return f"{response.headers}\n{response.text}\n"


def _sentence(text: str) -> str:
    """What an answer says, out of the JSON or the event stream that it is."""
    *_, last = [line for line in text.splitlines() if line] or [""]
    try:
        value = json.loads(last.removeprefix("data: "))
    except ValueError:
        return text
    if isinstance(value, dict):
        value = value.get("error", value.get("detail", value))
    if isinstance(value, list) and value and isinstance(value[0], dict) and "msg" in value[0]:
        return "; ".join(f"{each['msg']}: {'.'.join(map(str, each['loc']))}" for each in value)
    return value if isinstance(value, str) else json.dumps(value)


Send = Callable[[Sender], Given]


# --- Files that are none --------------------------------------------------------------------------------


def png(width: int, height: int, data: bytes, *chunks: tuple[bytes, bytes], colours: int = 2) -> bytes:
    """A PNG file as its parts say, true or not; `data` is what is compressed."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 1 if colours == 0 else 8, colours, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, content) for kind, content in parts)


def zeros(count: int) -> bytes:
    """So many zeros, compressed to a thousandth."""
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(count >> 20)]
    return b"".join([*parts, packer.compress(bytes(count % (1 << 20))), packer.flush()])


def good(kind: str = "JPEG") -> bytes:
    """A small picture that is one."""
    content = io.BytesIO()
    Image.new("RGB", (160, 120), (200, 90, 40)).save(content, kind)
    return content.getvalue()


def _noise(kind: str) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(content, kind)
    return content.getvalue()


def _float_tiff() -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(content, "TIFF")
    return content.getvalue()


UNKNOWN = r"is no picture of a known kind \(JPEG, PNG, .*\)\. Please choose another photo\.$"
DAMAGED = r"is (a )?damaged or incomplete.*Please choose another photo\.$"
NO_PICTURE = r"^(A picture is needed|What was sent is no)"
NOTHING = r"^There is nothing here\.$"
REFUSED = r"^Requests by the pages of other sites are refused"
ANSWERED = r'^\[\{"image": "[^"/]*", "width": 160, "height": 120'


def _file(content: bytes, name: str) -> Send:
    return lambda to: to.file(content, name)


def _detect(*data: Any) -> Send:
    return lambda to: to.detect(*data)


def _call(body: Any, endpoint: str) -> Send:
    return lambda to: to.call(body, endpoint)


def _event(name: str, *data: Any, event: Any = None) -> Send:
    return lambda to: to.event(name, *data, event=event)


def _request(method: str, path: str, **options: Any) -> Send:
    return lambda to: to.request(method, path, **options)


def cases() -> Iterator[Case]:
    """All of it."""
    yield from _files()
    yield from _names()
    yield from _values()
    yield from _elsewhere()
    yield from _requests()
    yield from _page_events()
    yield from _other_sites()


def _files() -> Iterator[Case]:
    files: dict[str, tuple[bytes | None, str, str]] = {
        "an empty file": (b"", "photo.jpg", r"^photo\.jpg is empty"),
        "a text named .jpg": (b"milk, bread\n" * 9, "note.jpg", "^note.jpg " + UNKNOWN),
        "a page of HTML named .jpg": (b"<!doctype html><script>alert(1)</script>", "page.jpg", UNKNOWN),
        "an SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>", "a.svg", UNKNOWN),
        "a PostScript file": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a.eps", UNKNOWN),
        "a ZIP archive named .png": (b"PK\x03\x04" + bytes(99), "a.png", UNKNOWN),
        "a PNG named .exe": (good("PNG"), "photo.exe", r'"image": "photo\.exe".*"width": 160'),
        "HEIC without its data": (b"\x00\x00\x00\x1cftypheic" + bytes(40), "a.heic", r"a\.heic is a .*HEIC"),
        "TIFF of floating-point numbers": (_float_tiff(), "a.tiff", "holds floating-point numbers"),
        "a PNG of 100 megapixels, all black": (
            png(10_000, 10_000, zeros(10_000 * 1251), colours=0),
            "large.png",
            r'^large\.png has 100 million pixels, the most|"width": 10000, "height": 10000, "faces": \[\]',
        ),
        "a PNG that says it has 3600 megapixels": (
            png(60_000, 60_000, zlib.compress(bytes(99))),
            "bomb.png",
            r"^bomb\.png has 3600 million pixels, the most that are read here are \d+ million",
        ),
        "a PNG of 400 megapixels in 50 kB": (
            png(20_000, 20_000, zeros(20_000 * 2501), colours=0),
            "bomb.png",
            r"^bomb\.png has 400 million pixels, the most",
        ),
        "a PNG whose text unpacks to 200 MB": (
            png(8, 8, zlib.compress(bytes(8 * 25)), (b"zTXt", b"k\0\0" + zeros(200_000_000))),
            "text.png",
            r"^text\.png " + DAMAGED + r'|"width": 8',
        ),
        "a PNG with far more data than pixels": (
            png(8, 8, zeros(100_000_000)),
            "more.png",
            r'"width": 8|' + DAMAGED,
        ),
        "a file larger than allowed": (
            None,
            "large.jpg",
            r"^File size exceeded maximum|^That is too much|^large\.jpg is larger than \d+ MB",
        ),
    }
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"):
        whole, name = _noise(kind), f"half.{kind.lower()}"
        # What every viewer shows is looked at, as far as it is there.
        expected = rf"^half\.\w+ {DAMAGED}" if kind == "WEBP" else '"width": 64'
        files[f"half a {kind}"] = (whole[: len(whole) // 2], name, expected)
    for what, (content, name, expected) in files.items():
        if content is None:
            yield Case("File", what, _too_large, expected)
        else:
            yield Case("File", what, _file(content, name), expected)


def _too_large(to: Sender) -> Given:
    """One byte more than the page says it takes."""
    props = [each["props"] for each in to.client.get("config").json()["components"]]
    limit = next(p["props"]["max_file_size"] for p in props if "max_file_size" in (p.get("props") or {}))
    return to.file(bytes(limit + 1), "large.jpg")


def _names() -> Iterator[Case]:
    names = {
        "leading out of its folder": "../../../../etc/passwd",
        "that is a folder": "..",
        "of 400 letters": "x" * 400 + ".jpg",
        "with tags": "<img src=x onerror=alert(1)>.jpg",
        "in other letters": "Фото ☃ ✓ 写真.jpg",
        "with quotes and a semicolon": "a';drop--.jpg",
        "with control characters": "a\tb\x07.jpg",
        "with backslashes": "a\\b\\photo.jpg",
        "with many dots": "my..holiday...jpg",
        "that begins with a dot": ".hidden.jpg",
    }
    for what, name in names.items():
        expected = ANSWERED if name != ".." else "^Invalid file name"
        yield Case("Name", f"a file name {what}", _file(good(), name), expected)


def _values() -> Iterator[Case]:
    values: dict[str, Any] = {
        "nothing": None,
        "a number": 5,
        "a truth value": True,
        "a list": [1, 2],
        "a text": "photo.jpg",
        "an empty object": {},
        "objects within objects": {"path": {"path": {"path": 1}}},
        "a path that is a number": {"path": 5, "meta": {"_type": "gradio.FileData"}},
        "a list, 200 deep": json.loads("[" * 200 + "]" * 200),
    }
    for what, value in values.items():
        yield Case("Value", what, _detect(value), NO_PICTURE)
    urls = {
        "a data: URL that is none": ("data:", UNKNOWN),
        "a data: URL of HTML": ("data:text/html;base64," + base64.b64encode(b"<html>").decode(), UNKNOWN),
        "a data: URL with a path for a kind": ("data:image/../../x;base64,AAAA", UNKNOWN),
        "a data: URL that is not base64": ("data:image/png;base64,!!!!", "is empty|" + UNKNOWN),
    }
    for what, (url, expected) in urls.items():
        yield Case("Value", what, _detect({"url": url}), expected)
    yield Case("Value", "no input at all", _detect(), NO_PICTURE)
    yield Case("Value", "a thousand inputs", _detect(*[None] * 1000), NO_PICTURE)


def _elsewhere() -> Iterator[Case]:
    """Files of the server, addresses inside its network."""
    marked = {"meta": {"_type": "gradio.FileData"}}
    for path in ("/etc/passwd", "../../etc/passwd", "/proc/self/environ", "file:///etc/passwd", "a\0b"):
        yield Case("Elsewhere", f"path {path!r}", _detect({"path": path}), NO_PICTURE)
        yield Case(
            "Elsewhere",
            f"path {path!r}, said to be a file",
            _detect({"path": path} | marked),
            NO_PICTURE,
        )
    for url in (
        "http://127.0.0.1:7860/config",
        "http://169.254.169.254/",
        "http://[::1]/",
        "http://0x7f000001/",
        "http://localhost:22/",
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
    ):
        yield Case(
            "Elsewhere",
            f"url {url}",
            _detect({"url": url}),
            NO_PICTURE,
        )
        yield Case(
            "Elsewhere",
            f"path {url}, said to be a file",
            _detect({"path": url} | marked),
            NO_PICTURE,
        )
    yield Case(
        "Elsewhere", "the folder of an upload as a path", _the_folder, r"is no longer here|" + NO_PICTURE
    )
    yield Case("Elsewhere", "an upload's path with .. out of the folder", _out_of_the_folder, NO_PICTURE)
    routes = {
        "gradio_api/file=/etc/passwd": "^File not allowed: ",
        "gradio_api/file=../../../../etc/passwd": "^File not allowed: |^Not Found",
        "gradio_api/file=http://169.254.169.254/": NOTHING,
        "gradio_api/file=http://example.org/": NOTHING,
        "gradio_api/file=FILE:///etc/passwd": NOTHING,
        "gradio_api/proxy=http://169.254.169.254/": NOTHING,
        "gradio_api/deep_link?session_hash=a": NOTHING,
        "gradio_api/dev/reload": NOTHING,
        "gradio_api/custom_component/x/client/component/..%2F..%2Fapp.py": NOTHING,
        "static/..%2f..%2f..%2f..%2fetc/passwd": "^(Forbidden|Not Found)$",
        "assets/%2e%2e/%2e%2e/%2e%2e/etc/passwd": "^(Forbidden|Not Found)$",
        "monitoring": "^Monitoring is not enabled",
        "monitoring/summary": "^Monitoring is not enabled",
        "docs": "^Not Found$",
    }
    for route, expected in routes.items():
        yield Case("Elsewhere", f"GET /{route}", _request("GET", route), expected)


def _the_folder(to: Sender) -> Given:
    path = to.upload(good()).json()[0]
    return to.detect({"path": path.rsplit("/", 1)[0]})


def _out_of_the_folder(to: Sender) -> Given:
    path = to.upload(good()).json()[0]
    return to.detect({"path": path.rsplit("/", 1)[0] + "/../../../../../../../../../etc/passwd"})


def _requests() -> Iterator[Case]:
    sent: dict[str, tuple[Any, str]] = {
        "not JSON": (b"milk", "^JSON decode error"),
        "bytes that are no text": (
            b"\xff\xfe\x00",
            "^(JSON decode error|There was an error parsing the body)",
        ),
        "nothing": (b"", "^Field required: body"),
        "a list": (b"[]", "^Input should be a valid dictionary"),
        "no data": (b"{}", "^Field required: body.data"),
        "data that is no list": (b'{"data": {"a": 1}}', "^Input should be a valid list: body.data"),
        "200000 open brackets": (b"[" * 200_000, "^(There was an error parsing the body|JSON decode error)"),
        "a session that is a number": (b'{"data": [], "session_hash": 5}', "^Input should be a valid string"),
    }
    for what, (body, expected) in sent.items():
        yield Case(
            "Request",
            f"a body that is {what}" if what != "no data" else "a body without data",
            _request("POST", "gradio_api/call/detect", content=body, headers=JSON),
            expected,
        )
    yield Case("Request", "infinity and no number in JSON", _numbers, NO_PICTURE)
    yield Case("Request", "a body larger than any file may be", _large_body, "^That is too much: ")
    yield Case("Request", "the same, its length not said", _streamed_body, "^That is too much: ")
    yield Case(
        "Request",
        "an input of another name",
        _call({"photo": None}, "call/v2/detect"),
        "^There is no parameter photo",
    )
    for name in ("nothing", "find", "save", "predict", "%2e%2e", "detect%00"):
        yield Case(
            "Request",
            f"POST /gradio_api/call/{name}",
            _call({"data": [None]}, f"call/{name}"),
            r"^There is no endpoint of this name|^Not Found",
        )
    yield Case(
        "Request",
        "POST /gradio_api/run/detect, past the queue",
        _call({"data": [None], "fn_index": 0}, "run/detect"),
        NOTHING,
    )
    for number in (9999, -1, 10**30):
        body = {"data": [], "fn_index": number, "session_hash": "bad"}
        yield Case(
            "Request",
            f"the function of number {number:.0e}" if number > 10**9 else f"the function of number {number}",
            _request("POST", "gradio_api/queue/join", json=body),
            "^The request could not be answered|^Input should be a valid integer|Unable to parse",
        )
    yield Case(
        "Request",
        "an answer that nobody asked for",
        _request("GET", "gradio_api/call/detect/0"),
        "404: Not Found",
    )
    yield Case(
        "Request",
        "an upload that is no form",
        _request("POST", "gradio_api/upload", content=b"x"),
        "^Invalid content type",
    )
    form = {"Content-Type": "multipart/form-data"}
    yield Case(
        "Request",
        "a form without a boundary",
        _request("POST", "gradio_api/upload", content=b"x", headers=form),
        "boundary",
    )
    cut = {"Content-Type": "multipart/form-data; boundary=b"}
    yield Case(
        "Request",
        "a form that breaks off",
        _request("POST", "gradio_api/upload", content=b"--b\r\nContent-Dis", headers=cut),
        r"^\[\]$|could not be answered|parse",
    )
    yield Case("Request", "1001 files in a form", _many_files, "^Too many files")
    yield Case(
        "Request",
        "a text in place of a file",
        _request("POST", "gradio_api/upload", files={"files": (None, "text")}),
        "could not be answered",
    )


def _numbers(to: Sender) -> Given:
    return to.call({"data": [float("nan"), float("inf")]})


def _large_body(to: Sender) -> Given:
    return _announced(to, 1 << 40)


def _announced(to: Sender, size: int) -> Given:
    """A call that is said to be so large; nothing of it is sent."""
    connection = http.client.HTTPConnection(to.host, timeout=60)
    connection.request("POST", "/gradio_api/call/detect", headers=JSON | {"Content-Length": str(size)})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return Given(_sentence(text), response.status, f"{response.getheaders()}\n{text}")


def _streamed_body(to: Sender) -> Given:
    """More than a request may bring along, as the page itself says when it is told of too much."""
    most = float(_announced(to, 1 << 40).told.rsplit(" MB", 1)[0].rsplit(" ", 1)[1])
    blocks = (b" " * (1 << 20) for _ in range(int(most) + 2))
    return to.request("POST", "gradio_api/call/detect", content=blocks, headers=JSON)


def _many_files(to: Sender) -> Given:
    files = [("files", (f"{number}.jpg", b"x")) for number in range(1001)]
    return to.request("POST", "gradio_api/upload", files=files)


def _page_events() -> Iterator[Case]:
    """The page's own functions, called by their number with what no page would send."""
    shown, size = ["points"], 1
    wrong = "^What was sent is no"
    yield Case(
        "Page",
        "photos: a path of the server",
        _event("find", {"paths": ["/etc/passwd"]}, shown, size),
        wrong,
    )
    marked = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    yield Case(
        "Page",
        "photos: a file of the server",
        _event("find", {"paths": [marked]}, shown, size),
        wrong,
    )
    yield Case("Page", "photos: a number", _event("find", 5, shown, size), wrong)
    yield Case("Page", "no inputs", _event("go_to"), wrong)
    for what, value in {
        "none offered": ["nope"],
        "a number": 5,
        "nothing": None,
        "a list in a list": [["points"]],
    }.items():
        yield Case(
            "Page",
            f"what to show: {what}",
            _event("draw_again", value, size),
            wrong + "|not in the list of choices",
        )
    for value in (-5, 1e308, "large", None, [1], 10**30):
        yield Case(
            "Page",
            f"size of the points: {value if not isinstance(value, (int, float)) else f'{value:g}'}",
            _event("draw_again", shown, value),
            wrong + r"|^\[None",
        )
    for value in (99, -1, "a", 1e300, [1], {"a": 1}, True):
        yield Case(
            "Page",
            f"which photo: {value}",
            _event("go_to", shown, size, event={"index": value}),
            r"^\[None",
        )
    for value in (None, 5, "x", [1], {"_data": 1}):
        yield Case(
            "Page",
            f"an event that is {json.dumps(value)}",
            _event("go_to", shown, size, event=value),
            "^This did not work",
        )


def _other_sites() -> Iterator[Case]:
    """What the page of another site makes a visitor's browser send."""
    foreign = {"Origin": "https://evil.example"}
    simple = foreign | {"Content-Type": "text/plain"}
    body = json.dumps({"data": [None]})
    yield Case(
        "Other site",
        "a call",
        _request("POST", "gradio_api/call/detect", content=body, headers=foreign),
        REFUSED,
    )
    yield Case(
        "Other site",
        "a call as plain text, which needs no leave of ours",
        _request("POST", "gradio_api/call/detect", content=body, headers=simple),
        REFUSED,
    )
    yield Case(
        "Other site",
        "an upload by a form",
        _request("POST", "gradio_api/upload", files={"files": ("a.jpg", good())}, headers=foreign),
        REFUSED,
    )
    yield Case(
        "Other site",
        "a file, frame or sandbox without a name (Origin: null)",
        _request("POST", "gradio_api/call/detect", content=body, headers={"Origin": "null"}),
        REFUSED,
    )
    asks = foreign | {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-forwarded-host",
    }
    yield Case(
        "Other site",
        "asking beforehand whether it may",
        _request("OPTIONS", "gradio_api/call/detect", headers=asks),
        REFUSED,
    )
    picture = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    yield Case(
        "Other site",
        "a picture or script of ours within it",
        _request("GET", "config", headers=picture),
        REFUSED,
    )
    rebound = {"Host": "evil.example", "Origin": "http://evil.example"}
    yield Case(
        "Other site",
        "a name of its own made to lead here",
        _request("POST", "gradio_api/call/detect", content=body, headers=rebound),
        "^This page does not answer to the name 'evil.example'",
    )
