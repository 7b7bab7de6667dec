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


def test_a_link_stays_a_link(tmp_path):
    """Results are kept on another disk that way."""
    (tmp_path / "disk").mkdir()
    path, link, dangling = tmp_path / "disk/a.json", tmp_path / "link.json", tmp_path / "dangling.json"
    path.write_text("[]\n")
    link.symlink_to("disk/a.json")
    dangling.symlink_to("disk/b.json")
    for name, file in ((link, path), (dangling, tmp_path / "disk/b.json")):
        outputs.check({"--json": name})
        with outputs.replacing(name) as written:
            written.write("new")
            assert outputs.part(name).parent == path.parent
        assert name.is_symlink() and file.read_text() == "new"
    dangling.unlink()
    dangling.symlink_to("nowhere/b.json")
    with pytest.raises(outputs.OutputError, match="no file can be written there"):
        outputs.check({"--json": dangling})


def test_results_are_told_from_files_that_are_not_ours(tmp_path):
    path = tmp_path / "a"
    for content, ours in {
        b"": True,
        b"[]\n": True,
        b'[{"image": "\\"a\\\\.jpg", "width": 3, "height": 2, "faces": []}]\n': True,
        b'{"video": "a.mp4", "width": 3, "height": 2, "frames": []}\n': True,
        b"[1, 2]": False,
        b'[{"image": "a.jpg", "label": "cat"}]\n': False,  # somebody's labels
        b'[{"image": "a.jpg", "width": 3, "height": 2,': False,
        b'{"n": 5, "names": []}': False,
        b"[]\n[1]": False,
        b"image,label\n": False,
        b"image,x0,y0,x1,y1\n": False,  # labels, as README says how they are written
        b"frame,time,face,name\n": False,
        b"notes about fkp keypoints and weights_sha256\n": False,
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


def test_part_file_may_be_a_users_own(tmp_path):
    """As a browser calls what it has not fetched whole."""
    path = tmp_path / "clip.mp4"
    outputs.part(path).write_bytes(b"half of a clip")
    with pytest.raises(outputs.OutputError, match=r"clip\.mp4\.part.* of a run that was killed, or not of"):
        outputs.check({"OUT": path})
    with pytest.raises(outputs.OutputError, match=r"clip\.mp4\.part.*read"):
        outputs.check({"OUT": path}, [outputs.part(path)], force=True)
    with pytest.raises(outputs.OutputError, match=r"both"):
        outputs.check({"--json": tmp_path / "a", "--csv": tmp_path / "a.part"}, force=True)
    outputs.check({"OUT": path}, force=True)


def test_printable():
    assert outputs.printable("a\x1b[31m\udcff\nb\u5199") == "a\\x1b[31m\ufffd\nb\u5199"
