"""What the page is told by its environment, variables FKP_… with defaults for a small server; its address."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from fkp.detectors import DETECTORS
from fkp.outputs import printable


class SettingsError(ValueError):
    """A variable or an address that cannot be used: one sentence with its name and the reason."""


def check_address(host: str, port: int = 0) -> None:
    """Raise SettingsError where nothing can listen at an address; with the port 0 at any port of it.

    Gradio would try one port after another.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as trial:
            if os.name == "posix":  # a port that was in use a moment ago
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        where, advice = (f"{host}:{port}", f"; choose another, as --port {port + 1}") if port else (host, "")
        raise SettingsError(f"{printable(where)}: {error.strerror}{advice}") from error


def _text(value: str) -> str:
    return value


def _yes(value: str) -> bool:
    if value not in ("0", "1"):
        raise ValueError("0 or 1")
    return value == "1"


def _names(value: str) -> tuple[str, ...]:
    names = tuple(value.replace(",", " ").lower().split())
    if any("/" in name for name in names):
        raise ValueError("a list of names without http://, as faces.example.org,localhost:8080")
    return names


def _count(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", value) or int(value) < 1:
        raise ValueError("a whole number from 1")
    return int(value)


def _bytes(value: str) -> int:
    match = re.fullmatch(r"([0-9]{1,12}) ?(|k|m|g)b?", value.lower())
    if not match or int(match[1]) < 1:
        raise ValueError("a number of bytes, as 800kb, 50mb or 1gb")
    return int(match[1]) * {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}[match[2]]


def _web_address(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s\"'<>]+", value):
        raise ValueError("an address as https://code.example.org/fkp")
    return value


def _detector(value: str) -> str:
    if value not in DETECTORS:
        raise ValueError(f"one of {', '.join(DETECTORS)}")
    return value


def _variable(default: Any, read: Callable[[str], Any], help: str) -> Any:
    return field(default=default, metadata={"read": read, "help": help})


@dataclass(frozen=True)
class Settings:
    """The settings of the page; `from_environment` reads each from FKP_ and its name in capitals."""

    model: str | None = _variable(None, _text, "weights: a folder, or OWNER/NAME on the Hub (those bundled)")
    revision: str | None = _variable(None, _text, "commit, branch or tag on the Hub (its newest)")
    detector: str = _variable("fkp", _detector, "what finds the faces: fkp, yunet or whole (fkp)")
    threads: int | None = _variable(None, _count, "threads for one picture (as many as there are cores)")
    max_faces: int = _variable(100, _count, "faces taken of one picture, the largest (100)")
    max_pixels: int = _variable(120_000_000, _count, "pixels a picture may have (120000000)")
    max_file_size: int = _variable(50_000_000, _bytes, "size a file may have, as 800kb or 1gb (50mb)")
    max_viewers: int = _variable(8, _count, "cameras served live at the same time (8)")
    max_clip_seconds: int = _variable(60, _count, "seconds a clip may last (60)")
    max_clip_size: int = _variable(100_000_000, _bytes, "size a clip may have, as 800kb or 1gb (100mb)")
    max_clip_frames: int = _variable(3600, _count, "frames a clip may have (3600)")
    max_clip_work: int = _variable(900, _count, "seconds that are worked on a clip at most (900)")
    max_disk: int = _variable(4_000_000_000, _bytes, "size of all that visitors have here (4gb)")
    clips_at_once: int = _variable(1, _count, "clips worked on at the same time, others wait in line (1)")
    mcp: bool = _variable(False, _yes, "1: the API is an MCP server too; needs gradio[mcp] (0)")
    source: str | None = _variable(
        None, _web_address, "where the source and docs are, for About (on a Space its files)"
    )
    hosts: tuple[str, ...] = _variable((), _names, "names it has besides, as faces.example.org (none)")
    browser_edition: str | None = _variable(None, _web_address, "where web/ is served, for a link (none)")


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
    if environment.get("SYSTEM") == "spaces":  # https://huggingface.co/docs/hub/spaces-overview
        # The machine has many more cores than the Space may use.
        cores = re.fullmatch(r"([1-9][0-9]{0,3})(\.[0-9]+)?", environment.get("CPU_CORES", ""))
        if cores:
            given.setdefault("threads", int(cores[1]))
        if space := environment.get("SPACE_ID"):
            given.setdefault("source", f"https://huggingface.co/spaces/{space}/tree/main")
        if host := environment.get("SPACE_HOST", "").lower():
            given["hosts"] = (*given.get("hosts", ()), host)
    return Settings(**given)


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"FKP_{name.upper()}"


def help_text() -> str:
    """A line for each variable, with its default in brackets."""
    return "\n".join(f"  {variable(each.name):<20} {each.metadata['help']}" for each in fields(Settings))
