"""Files written whole or not at all, and never over what is a user's own."""

import numpy as np
import pytest
from PIL import Image

from fkp import outputs


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), outputs.replacing(path) as file:
        file.write("half")
        raise ZeroDivisionError
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(ZeroDivisionError), outputs.replacing(path, keep=True) as file:
        file.write("half")
        raise ZeroDivisionError
    assert path.read_text() == "before" and outputs.part(path).read_text() == "half"
    with outputs.replacing(path) as file:
        file.write("after")
    assert path.read_text() == "after" and list(tmp_path.iterdir()) == [path]


def test_what_is_ours_is_told_from_what_is_not(tmp_path):
    path = tmp_path / "a"
    for content, ours in {
        b"": True,
        b"[]\n": True,
        b'[{"image": "a.jpg"}]\n': True,
        b"[1, 2]": False,
        b"image,label\n": False,
        b"\x89PNG\r\n": False,
    }.items():
        path.write_bytes(content)
        assert outputs.is_result(path) is ours, content
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path, "PNG")
    assert not outputs.is_result(path)


def test_an_input_is_known_by_any_of_its_names(tmp_path):
    given, linked = tmp_path / "given.json", tmp_path / "linked.json"
    given.write_text("[]\n")
    linked.hardlink_to(given)
    with pytest.raises(outputs.OutputError, match=r"linked\.json.*--json"):
        outputs.check({"--json": linked}, [given], force=True)


def test_printable():
    assert outputs.printable("a\x1b[31m\udcff\nb\u5199") == "a\\x1b[31m\ufffd\nb\u5199"
