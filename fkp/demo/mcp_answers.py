"""What tools of the MCP server answer: JSON, where Gradio would write what Python's `str` makes of it."""

from __future__ import annotations

import json
from typing import Any


def in_json(server: Any) -> None:
    """Let a `gradio.mcp.GradioMCPServer` class answer dictionaries and lists as JSON text."""
    as_gradio_has_it = server.postprocess_output_data

    def postprocess_output_data(self: Any, data: Any, root_url: str) -> list[Any]:
        files = [isinstance(each, dict) and {"path", "url"} & each.keys() for each in data]
        written = [
            each if file or not isinstance(each, (dict, list)) else json.dumps(each)
            for each, file in zip(data, files, strict=True)
        ]
        answers: list[Any] = as_gradio_has_it(self, written, root_url)
        return answers

    server.postprocess_output_data = postprocess_output_data
