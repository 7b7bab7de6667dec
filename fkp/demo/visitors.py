"""Who asks: visitors told apart, as far as that can be done without names."""

from __future__ import annotations

import ipaddress
from typing import Any


def address(request: Any) -> str:
    """Where a `gradio.Request` comes from; empty where that tells nobody apart: from this computer itself."""
    host = request.client.host if request is not None and request.client else ""
    try:
        return "" if ipaddress.ip_address(host).is_loopback else str(host)
    except ValueError:
        return str(host)


def name(request: Any) -> str:
    """The same for one visitor and different for others: the address or else the session."""
    return address(request) or str(getattr(request, "session_hash", "") or "")
