"""Numbers of a command line: a `type` for argparse, which refuses any other number with a sentence."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T", int, float)


def whole(least: int, most: float = math.inf) -> Callable[[str], int]:
    """Whole numbers from `least` to `most`."""
    return _within(int, least, most, "whole number")


def number(least: float, most: float = math.inf) -> Callable[[str], float]:
    """Finite numbers from `least` to `most`."""
    return _within(float, least, most, "number")


def _within(kind: Callable[[str], T], least: float, most: float, what: str) -> Callable[[str], T]:
    wanted = f"a {what} from {least}" + (f" to {most}" if most < math.inf else "")

    def read(text: str) -> T:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most or value == math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return value

    return read


count, share = whole(1), number(0, 1)
"""Whole numbers from 1, and numbers from 0 to 1."""
