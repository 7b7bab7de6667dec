"""The folder of uploads: whose is what, what may be read, and what goes when."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fkp import images
from fkp.demo import fair_share, uploads


def upload(folder, content: bytes, name: str = "holiday.jpg"):
    """A file as Gradio puts it."""
    path = folder / hashlib.sha256(content).hexdigest() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def files(folder) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_uploads_are_regular_files_where_uploads_lie(tmp_path):
    """The folder itself, named as a photo, once ended the sweeping for everybody."""
    folder = tmp_path / "uploads"
    path = upload(folder, b"pixels")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (path.parent / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    os.mkfifo(path.parent / "pipe.jpg")
    (folder / "tmpabc").mkdir()
    (folder / "tmpabc" / "saved.png").write_bytes(b"another's")
    assert uploads.uploaded(str(path), folder) == path
    for name in (
        folder, path.parent, folder / "tmpabc" / "saved.png",
        path.parent / "link.jpg", path.parent / "pipe.jpg",
        tmp_path / "secret.jpg", f"{path.parent}/../../secret.jpg", folder / "x", "", "a\0b", 5, None, ["a"],
        "/dev/stdin", "/proc/self/environ",
    ):  # fmt: skip
        with pytest.raises(images.ImageError):
            uploads.uploaded(str(name) if hasattr(name, "parent") else name, folder)


def test_two_visitors_with_the_same_file_do_not_take_it_from_each_other(tmp_path):
    path = upload(tmp_path, b"pixels")
    (one,) = uploads.claimed([path], tmp_path)
    (two,) = uploads.claimed([path], tmp_path)
    assert one != two and one.name == two.name == "holiday.jpg"
    uploads.delete([one], tmp_path)
    assert not one.exists() and two.read_bytes() == b"pixels"
    uploads.delete([two], tmp_path)
    assert files(tmp_path) == []  # the upload itself went with the last
    uploads.delete([one, two], tmp_path)  # twice is no error


def test_a_file_named_twenty_times_is_one(tmp_path):
    path = upload(tmp_path, b"pixels")
    assert len(uploads.claimed([path] * 20, tmp_path)) == 1


def test_examples_stay(tmp_path):
    example = tmp_path / "example.jpg"
    example.write_bytes(b"pixels")
    (tmp_path / "uploads").mkdir()
    uploads.delete([example], tmp_path / "uploads")
    assert example.exists()


def age(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_broken_off_uploads_go_soon(tmp_path):
    """Gradio writes what is coming beside the folders of what has come."""
    for name, seconds in (("coming", 1), ("broken", 100)):
        (tmp_path / name).write_bytes(b"half")
        age(tmp_path / name, seconds)
    upload(tmp_path, b"pixels")
    uploads.delete_old(tmp_path, 3600)
    assert files(tmp_path) == ["coming", "holiday.jpg"]


def test_room_counts_what_is_there_once(tmp_path):
    path = upload(tmp_path, b"x" * 1000)
    uploads.claimed([path], tmp_path)
    assert uploads.room(tmp_path, 5000) == 4000


def test_of_what_is_saved_only_the_last_is_kept(tmp_path):
    def save(key: str, content: bytes) -> Path:
        return uploads.saved(tmp_path, "keypoints.zip", key, lambda path: path.write_bytes(content))

    (first, *_, last), other = [save("an album", bytes([i])) for i in range(20)], save("another", b"pictures")
    assert files(tmp_path) == ["keypoints.zip"] * 2
    assert first == last != other and last.read_bytes() == bytes([19])


def test_what_is_saved_is_whole_at_any_time(tmp_path):
    """A browser may fetch it while it is saved once more."""

    def write(path: Path) -> None:
        path.write_bytes(b"half")
        assert saved.read_bytes() == b"pictures"
        raise OSError("no space left")

    saved = uploads.saved(tmp_path, "a.png", "an album", lambda path: path.write_bytes(b"pictures"))
    with pytest.raises(OSError, match="no space"):
        uploads.saved(tmp_path, "a.png", "an album", write)
    assert files(tmp_path) == ["a.png"] and saved.read_bytes() == b"pictures"
    age(saved, 4000)
    uploads.delete_old(tmp_path, -1)  # as old as can be
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="nothing that is open can be deleted there")
def test_the_folder_of_a_killed_server_goes_at_the_next_start(tmp_path):
    code = f"""
import time
from pathlib import Path
from fkp.demo import uploads
with uploads.own_folder(Path({str(tmp_path)!r})) as folder:
    (folder / "photo.jpg").write_bytes(b"pixels")
    print("ready", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        with uploads.own_folder(tmp_path):
            assert files(tmp_path).count("photo.jpg") == 1  # the other is alive
        server.send_signal(signal.SIGKILL)
    assert files(tmp_path).count("photo.jpg") == 1
    with uploads.own_folder(tmp_path) as folder:
        assert [path for path in tmp_path.iterdir() if path.is_dir()] == [folder]
    assert list(tmp_path.iterdir()) == []


# --- Shares ------------------------------------------------------------------------------------------------


def test_fair_share_lets_many_requests_wait_behind_few():
    share, order = fair_share.FairShare(10), []

    def wish(visitor):
        with share.taken(10, visitor):
            order.append(visitor)

    with share.taken(10, "heavy"):
        threads = [threading.Thread(target=wish, args=[name]) for name in ["heavy"] * 4 + ["light", "other"]]
        for thread in threads:
            thread.start()
            time.sleep(0.02)
    for thread in threads:
        thread.join()
    assert order[:2] == ["light", "other"] and order[2:] == ["heavy"] * 4


def test_fair_share_gives_all_to_what_is_larger_than_all():
    share = fair_share.FairShare(10)
    with share.taken(99):
        pass
    inside = threading.Barrier(3, timeout=10)

    def wish():
        with share.taken(3):
            inside.wait()

    threads = [threading.Thread(target=wish) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not inside.broken
