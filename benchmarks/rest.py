"""Calling the page as programs without gradio_client do: upload, call, and wait for the answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx

PATIENCE = httpx.Timeout(20, read=300)
"""For a server that has many others to answer first; it sends signs of life while a call waits."""


@dataclass(frozen=True)
class Answer:
    """What a call came to: `kind` is "complete", "busy" or "error".

    `told` is the result if complete, else the sentence given; None where there was none.
    """

    kind: str
    told: Any


async def upload(client: httpx.AsyncClient, name: str, content: bytes) -> str:
    """The path under which the page keeps a file. Raises httpx.HTTPStatusError where it is refused."""
    response = await client.post("gradio_api/upload", files={"files": (name, content)})
    (path,) = response.raise_for_status().json()
    return path


async def call(client: httpx.AsyncClient, endpoint: str, inputs: dict[str, Any]) -> Answer:
    """Call an endpoint with inputs by name, the others at their defaults, and wait for the end of it."""
    started = await client.post(f"gradio_api/call/v2/{endpoint}", json=inputs)
    if started.status_code == 503:
        return Answer("busy", started.json()["detail"])
    if started.is_error:
        return Answer("error", f"{started.status_code} {started.text}")
    event = started.json()["event_id"]
    kind = ""
    async with client.stream("GET", f"gradio_api/call/{endpoint}/{event}") as lines:
        async for line in lines.aiter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: ") and kind in ("complete", "error"):
                told = json.loads(line.removeprefix("data: "))
                if kind == "complete":
                    return Answer(kind, told[0])
                return Answer(kind, told["error"] if isinstance(told, dict) else told)
    return Answer("error", "the answer broke off")


def picture(path: str) -> dict[str, Any]:
    """An uploaded file as an input."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}}
