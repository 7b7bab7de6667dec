"""Files and sessions that are old enough go, the others stay."""

from __future__ import annotations

import asyncio
import datetime
import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import gradio as gr
import pytest

from fkp.demo import data_retention, heap, uploads


@pytest.fixture
def folder(tmp_path):
    """Two files in folders of their own, as Gradio and `photos` lay them."""
    for name in ("a/holiday.jpg", "b/deeper/holiday_keypoints.png"):
        path = tmp_path / "uploads" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"pixels")
    return tmp_path / "uploads"


def test_files_that_are_young_stay(folder):
    uploads.delete_old(folder, seconds=60)
    assert len([path for path in folder.rglob("*") if path.is_file()]) == 2


def test_files_that_are_old_go_with_their_folders(folder):
    uploads.delete_old(folder, seconds=-1)
    uploads.delete_old(folder, seconds=-1)  # what has just become empty is as young as that
    assert folder.is_dir() and list(folder.iterdir()) == []


def test_a_folder_that_is_not_there_is_no_error(tmp_path):
    uploads.delete_old(tmp_path / "none", seconds=0)


def test_links_are_not_followed(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept.txt").write_text("kept")
    os.symlink(elsewhere, folder / "link")
    os.symlink(elsewhere / "kept.txt", folder / "a" / "link.txt")
    uploads.delete_old(folder, seconds=-1)
    assert (elsewhere / "kept.txt").read_text() == "kept"
    assert not (folder / "link").exists() and not (folder / "a").exists()


@pytest.fixture
def sessions():
    """A holder with a session that has state, and one without."""

    async def build():
        with gr.Blocks() as page:
            state = gr.State("nothing", delete_callback=deleted.append)
        return page, state

    deleted: list = []
    page, state = asyncio.run(build())
    page.state_session_capacity = 10
    holder = data_retention.Sessions()
    holder.set_blocks(page)
    holder["visitor"][state._id] = "photos"
    holder["caller"]
    return holder, deleted


def age(holder, seconds):
    for name in holder.time_last_used:
        holder.time_last_used[name] -= datetime.timedelta(seconds=seconds)


def test_young_sessions_stay(sessions):
    holder, _ = sessions
    holder.drop_old(3600, 60)
    assert set(holder.session_data) == {"visitor", "caller"}


def test_sessions_without_state_go_early(sessions):
    holder, deleted = sessions
    age(holder, 100)
    holder.drop_old(3600, 60)
    assert set(holder.session_data) == set(holder.time_last_used) == {"visitor"} and deleted == []


def test_old_sessions_go_and_what_they_hold_is_disposed_of(sessions):
    holder, deleted = sessions
    age(holder, 4000)
    holder.drop_old(3600, 60)
    assert not holder.session_data and not holder.time_last_used and deleted == ["photos"]


def test_notes_of_calls_go_with_their_sessions(sessions, tmp_path):
    """As after calls of the API whose sessions were dropped; one still waits for its turn."""
    holder, _ = sessions
    page, queue = holder.blocks, holder.blocks._queue
    (tmp_path / "kept.png").write_bytes(b"pixels")
    page.upload_file_set.update([str(tmp_path / "kept.png"), str(tmp_path / "gone.png")])
    for name in ("visitor", "over", "waits"):
        queue.pending_messages_per_session[name] = name
        queue.pending_event_ids_session[name] = set()
    queue.event_ids_to_events["1"] = SimpleNamespace(session_hash="waits")
    holder.drop_answers()
    assert set(queue.pending_messages_per_session) == {"visitor", "waits"}
    assert set(queue.pending_event_ids_session) == {"visitor", "waits"}
    assert page.upload_file_set == {str(tmp_path / "kept.png")}


async def until_swept(folder, holder):
    async with data_retention.sweeping(SimpleNamespace(state_holder=holder), folder):
        for _ in range(500):
            await asyncio.sleep(0.01)
            if not list(folder.iterdir()) and not holder.session_data:
                break


def test_sweeping_goes_on_as_long_as_the_app_runs(folder, sessions, monkeypatch):
    holder, deleted = sessions
    age(holder, 4000)
    monkeypatch.setattr(data_retention, "SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(data_retention, "KEPT_SECONDS", 0)

    async def run():
        await until_swept(folder, holder)
        (folder / "later").write_text("after the end")
        await asyncio.sleep(0.05)

    asyncio.run(run())
    assert [path.name for path in folder.iterdir()] == ["later"] and deleted == ["photos"]


def test_sweeping_goes_on_after_anything_that_fails(folder, sessions, monkeypatch, caplog):
    """Each step by itself, and each session by itself; what failed is logged."""
    holder, deleted = sessions
    age(holder, 4000)
    monkeypatch.setattr(data_retention, "SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(data_retention, "KEPT_SECONDS", 0)
    original = data_retention.Sessions.delete_state

    def delete_state(self, name, expired_only=False):
        original(self, name, expired_only)
        raise OSError(f"no {name}")

    def refuse(*_):
        raise IsADirectoryError("a folder")

    monkeypatch.setattr(data_retention.Sessions, "delete_state", delete_state)
    monkeypatch.setattr(heap, "give_back", refuse)
    monkeypatch.setattr(data_retention.Sessions, "drop_answers", refuse)

    asyncio.run(until_swept(folder, holder))
    assert list(folder.iterdir()) == [] and not holder.session_data and deleted == ["photos"]
    told = caplog.text
    assert "no visitor" in told and "no caller" in told and "a folder" in told


def test_calls_push_out_no_visitor(sessions):
    """1005 of them once took every visitor's photos away."""
    holder, deleted = sessions
    for number in range(1005):
        holder[f"call {number}"]
    assert "visitor" in holder.session_data and len(holder.session_data) == 10 and deleted == []


def test_sessions_that_all_hold_state_lose_the_longest_away(sessions):
    holder, deleted = sessions
    (state,) = holder["visitor"].state_data
    for number in range(12):
        holder[f"visitor {number}"][state] = number
    assert "visitor" not in holder.session_data and deleted[0] == "photos"


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked to give memory back")
def test_memory_that_is_no_longer_in_use_goes_back_to_the_system() -> None:
    code = """
import ctypes
from fkp.demo import heap

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

assert heap.keep_together()
malloc, free = ctypes.CDLL("libc.so.6").malloc, ctypes.CDLL("libc.so.6").free
malloc.restype, free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
before = resident()
blocks = [malloc(ctypes.c_size_t(100_000)) for _ in range(1000)]
for block in blocks:
    ctypes.memset(block, 1, 100_000)
full = resident()
for block in blocks[:-1]:  # what is left at the end keeps the rest from going by itself
    free(block)
kept = resident()
assert heap.give_back()
after = resident()
assert full - before > 20_000 and kept - before > 0.9 * (full - before), (before, full, kept)
assert after - before < 0.2 * (full - before), (before, full, kept, after)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
