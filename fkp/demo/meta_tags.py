"""The page's own description for search engines and link previews, in the place of Gradio's."""

from __future__ import annotations

import html
import re
from typing import Any

TITLE = "Face keypoints"
DESCRIPTION = "Finds every face in a photo or clip and places 68 points on it, each with a confidence."

_GRADIO = re.compile(rb"<meta[^>]*(?:og:|twitter:|name=\"description\")[^>]*>", re.IGNORECASE)
_OWN = "".join(
    f'<meta {kind}="{name}" content="{html.escape(content)}">'
    for kind, name, content in (
        ("name", "description", DESCRIPTION),
        ("property", "og:title", TITLE),
        ("property", "og:type", "website"),
        ("property", "og:description", DESCRIPTION),
        ("name", "twitter:card", "summary"),
    )
).encode()


class MetaTags:
    """ASGI middleware: the page's HTML, with our meta tags."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"].rstrip("/"):
            return await self.app(scope, receive, send)
        start: dict[str, Any] = {}
        body = b""

        async def rewrite(message: Any) -> None:
            nonlocal body
            if message["type"] == "http.response.start":
                start.update(message)
                return
            body += message.get("body", b"")
            if message.get("more_body", False):
                return
            kind = dict(start["headers"]).get(b"content-type", b"")
            if kind.startswith(b"text/html") and b"content-encoding" not in dict(start["headers"]):
                body = _GRADIO.sub(b"", body).replace(b"<head>", b"<head>" + _OWN, 1)
                headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
                start["headers"] = [*headers, (b"content-length", str(len(body)).encode())]
            await send(start)
            await send({"type": "http.response.body", "body": body})

        await self.app(scope, receive, rewrite)
