"""What the page is told by its environment: variables FKP_…, with defaults that suit a small server."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any


class SettingsError(ValueError):
    """A variable whose value cannot be used: one sentence with its name, the value and what is needed."""


def _text(value: str) -> str:
    return value


def _yes(value: str) -> bool:
    if value not in ("0", "1"):
        raise ValueError("0 or 1")
    return value == "1"


def _count(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", value) or int(value) < 1:
        raise ValueError("a whole number from 1")
    return int(value)


def _bytes(value: str) -> int:
    match = re.fullmatch(r"([0-9]{1,12}) ?(|k|m|g)b?", value.lower())
    if not match or int(match[1]) < 1:
        raise ValueError("a number of bytes, as 800kb, 50mb or 1gb")
    return int(match[1]) * {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}[match[2]]


def _variable(default: Any, read: Callable[[str], Any], help: str) -> Any:
    return field(default=default, metadata={"read": read, "help": help})


@dataclass(frozen=True)
class Settings:
    """The settings of the page; `from_environment` reads each from FKP_ and its name in capitals."""

    model: str | None = _variable(None, _text, "weights: a folder, or OWNER/NAME on the Hub (those bundled)")
    revision: str | None = _variable(None, _text, "commit, branch or tag on the Hub (its newest)")
    threads: int | None = _variable(None, _count, "threads for one picture (as many as there are cores)")
    max_faces: int = _variable(100, _count, "faces looked at in one picture, the largest (100)")
    max_pixels: int = _variable(120_000_000, _count, "pixels a picture may have (120000000)")
    max_file_size: int = _variable(50_000_000, _bytes, "size a file may have, as 800kb or 1gb (50mb)")
    mcp: bool = _variable(False, _yes, "1: the API is an MCP server too; needs gradio[mcp] (0)")


def from_environment(environment: Mapping[str, str]) -> Settings:
    """The settings that an environment asks for; what is not set or empty is as by default.

    Raises SettingsError for the first value that cannot be used.
    """
    given: dict[str, Any] = {}
    for each in fields(Settings):
        value = environment.get(variable(each.name), "").strip()
        if value:
            try:
                given[each.name] = each.metadata["read"](value)
            except ValueError as error:
                name = variable(each.name)
                raise SettingsError(f"{name} is {value!r}, where {error} is needed") from None
    return Settings(**given)


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"FKP_{name.upper()}"


def help_text() -> str:
    """A line for each variable, with its default in brackets."""
    return "\n".join(f"  {variable(each.name):<18} {each.metadata['help']}" for each in fields(Settings))
