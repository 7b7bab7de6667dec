"""The newest of a visitor's actions has its way, and nothing is sent between what belongs together."""

from __future__ import annotations

import copy
import threading

import pytest

from fkp.demo import latest_action
from fkp.demo.latest_action import LatestAction


@pytest.mark.slow
def test_a_newer_action_ends_an_older_one():
    visitor = LatestAction("nothing")
    assert visitor.begin(10.0) and not visitor.is_over(10.0)
    assert visitor.begin(12.5) and visitor.is_over(10.0) and not visitor.is_over(12.5)
    with visitor.sending(10.0) as older, visitor.sending(12.5) as newer, visitor.sending() as looking:
        pass
    assert (older, newer, looking) == (False, True, True)


def test_an_action_that_comes_late_does_not_begin():
    """It waited in a queue, and a later one did not."""
    visitor = LatestAction("nothing")
    assert visitor.begin(12.5) and not visitor.begin(10.0) and not visitor.is_over(12.5)


@pytest.mark.parametrize("moment", [None, "12", [1], {"a": 1}, float("nan")])
def test_moment_that_is_none_comes_before_all_others(moment):
    visitor = LatestAction("nothing")
    visitor.begin(moment)
    assert not visitor.is_over(moment)
    assert visitor.begin(0) and not visitor.is_over(0)


def test_sending_waits_for_what_is_being_sent():
    visitor, seen = LatestAction("nothing"), []

    def other():
        with visitor.sending():
            seen.append("second")

    with visitor.sending():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.05)
        seen.append("first")
    thread.join()
    assert seen == ["first", "second"]


def test_a_browser_that_has_gone_while_something_was_sent_blocks_nobody(monkeypatch):
    monkeypatch.setattr(latest_action, "PATIENCE", 0.01)
    visitor = LatestAction("nothing")
    gone = visitor.sending()
    gone.__enter__()
    with visitor.sending() as goes_on:
        assert goes_on
    gone.__exit__(None, None, None)
    with visitor.sending():
        assert not visitor._sending.acquire(blocking=False)


def test_a_copy_is_for_the_next_visitor():
    first = LatestAction(("nothing",))
    first.begin(5)
    with first.sending():
        second = copy.deepcopy(first)
        with second.sending():
            assert second.begin(1) and second.value == ("nothing",)
