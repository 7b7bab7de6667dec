"""Files written whole or not at all, and never over what is a user's own; words, and how programs end."""

import io
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fkp import outputs
from tests.full_disk import full_disk


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
        b'{"info": {"description": "Faces"}, "images": []}': False,  # by an annotation tool
        b'[{"data": {"image": "a.jpg"}, "predictions": [{"model_version": "mine"}]}]': False,
        b"<?xml version='1.0'?>\n<annotations><!-- fkp keypoints --></annotations>": False,
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


def test_labels_are_called_what_they_are(tmp_path):
    """Those that fkp converted as well as a person's own, which look the same."""
    path = tmp_path / "labels.csv"
    path.write_text("image,x0,y0,x1,y1\n")
    with pytest.raises(outputs.OutputError, match=r"labels\.csv.*may hold labels.*--force") as caught:
        outputs.check({"--csv": path})
    assert "not of fkp" not in str(caught.value)


@pytest.mark.parametrize("errors", ["opening", "writing"])
def test_errors_name_the_file_and_not_its_part(tmp_path, errors):
    path = tmp_path / "a.txt"
    if errors == "opening":
        outputs.part(path).symlink_to("nowhere/b.txt")
    with pytest.raises(OSError) as caught, full_disk(1000), outputs.replacing(path) as file:
        file.write("a" * 10_000)
    assert caught.value.filename == str(path) and not path.exists()
    assert outputs.part(path).is_symlink() == (errors == "opening"), "all is as it was"


# --- Words --------------------------------------------------------------------------------------------------


def raising(error):
    def command():
        raise error

    return command


def test_run_tells_errors_and_warnings(tmp_path, capsys):
    gone = raising(FileNotFoundError(2, "No such file", "gone"))
    for command, status, told in (
        (lambda: 3, 3, ""),
        (lambda: warnings.warn("old", stacklevel=1) or 0, 0, "fkp: old\n"),
        (gone, 1, "fkp: gone: No such file\n"),
        (raising(outputs.OutputError("a: is there")), 1, "fkp: a: is there\n"),
        (raising(KeyError("refused\x1b")), 1, "fkp: 'refused\\x1b'\n"),
        (raising(BrokenPipeError(32, "Broken pipe")), 1, ""),
        (raising(KeyboardInterrupt), 130, ""),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            assert outputs.run(command, (KeyError,)) == status
        assert capsys.readouterr() == ("", told)
    with pytest.raises(KeyError):
        outputs.run(raising(KeyError("a")))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
@pytest.mark.parametrize("command", [lambda: outputs.show("a"), lambda: print("a") or 0])
def test_a_full_stdout_is_named(capsys, monkeypatch, command):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert outputs.run(command) == 1
    assert capsys.readouterr().err.startswith("fkp: standard output: ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
def test_nobody_hears(capsys, monkeypatch):
    """A stderr that is closed or full changes nothing, least of all what goes to stdout."""
    with io.TextIOWrapper(open("/dev/full", "wb", buffering=0), write_through=True) as full:
        for stderr in (None, full):
            monkeypatch.setattr(sys, "stderr", stderr)
            outputs.tell("a")
            assert outputs.run(raising(outputs.OutputError("b"))) == 1
    monkeypatch.setattr(sys, "stdout", None)
    outputs.show("c")
    assert outputs.run(lambda: 0) == 0
    assert capsys.readouterr().out == ""


def test_printable():
    assert outputs.printable("a\x1b[31m\udcff\nb\u5199") == "a\\x1b[31m\ufffd\nb\u5199"


@pytest.mark.skipif(outputs.fcntl is None, reason="needs locks")
def test_of_two_runs_that_begin_together_one_is_told(tmp_path: Path) -> None:
    """Whichever comes second: what the first has written stays, and only that appears."""
    path, start, ended = tmp_path / "a.txt", threading.Barrier(2), threading.Barrier(2)

    def write(text: str) -> str | None:
        start.wait()
        try:
            with outputs.replacing(path) as file:
                file.write(text)
                ended.wait(10)
        except outputs.OutputError as error:
            ended.wait(10)
            return str(error)
        return None

    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            told = list(pool.map(write, ("one", "two")))
            (refused,) = filter(None, told)
            assert "another run is writing it" in refused
            assert path.read_text() == ("two" if told[0] else "one") and not outputs.part(path).exists()
