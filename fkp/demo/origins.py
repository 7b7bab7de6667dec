"""Whether a request comes from this page or from a program, and not from the page of another site.

Browsers let any site send requests to any server, and say from where in headers that scripts cannot set
(Origin, Sec-Fetch-Site; https://www.w3.org/TR/fetch-metadata/). Programs send neither. A name that another
site has made to lead to this computer (DNS rebinding) looks to the browser like the site itself: what listens
on this computer only answers to names that nobody else can give.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping

_DEFAULT_PORTS = {"http": "80", "https": "443"}


def refusal(headers: Mapping[str, str], hosts: Collection[str] = (), at_home: bool = False) -> str | None:
    """Why a request is refused, as a sentence; None where it is not.

    `headers` by names in small letters. `hosts` are names, with the port where it is not the usual one, by
    which the page is reached besides that in the request: by way of a proxy that does not pass it on.
    `at_home` says that it listens on this computer only.
    """
    asked_for = headers.get("host", "").lower()
    if at_home and asked_for and not _only_ours(_without_port(asked_for)) and not _named(asked_for, hosts):
        return f"This page does not answer to the name {asked_for!r}: FKP_HOSTS can name it."
    site = headers.get("sec-fetch-site", "")
    if site in ("same-origin", "none"):
        return None
    origin = headers.get("origin")
    if origin is None:
        # Links and frames of other sites may lead here: the visitor sees where they are.
        if site and headers.get("sec-fetch-mode") != "navigate":
            return "Requests by the pages of other sites are refused."
        return None
    scheme, _, place = origin.lower().partition("://")
    ours = [asked_for, *(name.strip() for name in headers.get("x-forwarded-host", "").lower().split(","))]
    if place and _usual(place, scheme) in {_usual(name, scheme) for name in ours if name}:
        return None
    if place and _named(place, hosts):
        return None
    return f"Requests by the pages of other sites are refused, as of {origin!r}; FKP_HOSTS can name more."


def _named(place: str, hosts: Collection[str]) -> bool:
    return bool({place, _without_port(place)} & {host.lower() for host in hosts})


def _usual(place: str, scheme: str) -> str:
    """A name, without the port that is understood."""
    return place.removesuffix(":" + _DEFAULT_PORTS[scheme]) if scheme in _DEFAULT_PORTS else place


def _without_port(place: str) -> str:
    if place.startswith("["):  # IPv6
        return place.partition("]")[0].removeprefix("[")
    return place.partition(":")[0]


def _only_ours(name: str) -> bool:
    """Whether a name is one that cannot be made to lead elsewhere: an address, or the computer itself."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
