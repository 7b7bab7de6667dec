"""Numbers of a command line."""

import argparse

import pytest

from fkp import arguments


@pytest.mark.parametrize(
    ("kind", "taken", "refused"),
    [
        (arguments.count, {"1": 1, "12": 12}, ["0", "-1", "1.5", "many", ""]),
        (arguments.share, {"0": 0, "0.25": 0.25, "1": 1}, ["-0.1", "1.1", "nan", "inf", "half"]),
        (arguments.whole(8, 16), {"8": 8, "16": 16}, ["7", "17", "1e1"]),
        (arguments.number(0), {"0": 0, "1e30": 1e30}, ["-1", "nan", "inf", "-inf", "much"]),
    ],
)
def test_numbers_in_their_range_and_no_others(kind, taken, refused):
    assert {text: kind(text) for text in taken} == taken
    for text in refused:
        with pytest.raises(argparse.ArgumentTypeError, match=f"^{text!r} is not a .*number from"):
            kind(text)
