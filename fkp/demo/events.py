"""What the events of all tabs share: limits, scripts, and how a function shows something step by step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from fkp.demo.latest_action import LatestAction

Shown = Iterator[dict[Any, Any]]
"""What a function shows, step by step: values by component."""

AT_ONCE = 4
"""Requests that are worked on at the same time; the rest wait in a queue."""

PRIVATE: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": AT_ONCE}
"""Options of an event that only the page itself may cause."""
QUICK: dict[str, Any] = PRIVATE | {"show_progress": "hidden"}


def ending_with(kept: gr.State) -> Callable[[Callable[..., Shown]], Callable[..., Shown]]:
    """For a function that shows something step by step, its first input being the state: that comes last.

    Gradio repeats at the end what came last, when something newer may be there to be seen.
    """

    def ending(steps: Callable[..., Shown]) -> Callable[..., Shown]:
        @functools.wraps(steps)
        def all_steps(session: LatestAction[Any], *given: Any) -> Shown:
            yield from steps(session, *given)
            yield {kept: session}

        return all_steps

    return ending


# For the last input: when the button was pressed.
NOW = """(...given) => [...given.slice(0, -1), performance.now()]"""


def at_rest(what: str) -> str:
    """The same for changes: when the last one was, once nothing of `what` has been changed for a while; those
    before it are not sent."""
    return f"""(...given) => new Promise((done) => {{
  const waiting = (window.fkpAtRest ??= {{}}), now = performance.now();
  clearTimeout(waiting.{what});
  waiting.{what} = setTimeout(() => done([...given.slice(0, -1), now]), 400);
}})"""


# On a phone the result stands below the photo.
SCROLL = """() => {
  const block = matchMedia("(max-width: 800px)").matches ? "start" : "nearest";
  window.fkpScrollTo(document.querySelector("#answer"), block);
}"""
TO_FACE = """() => {
  const chosen = document.querySelector("#face .strip [aria-pressed=true]"), row = chosen?.parentElement;
  if (row) row.scrollTop = chosen.offsetTop - 3;
  window.fkpScrollTo(document.querySelector("#face .loupe"), "nearest");
}"""
SCROLL_TO_CLIP = """() => {
  const answer = document.querySelector("#clip-answer");
  const {top} = answer.getBoundingClientRect();
  if (top < 0 || top > window.innerHeight - 120) window.fkpScrollTo(answer, "start");
}"""
TO_FILM = """() => {
  const find = (what) => document.querySelector(`#clip-answer ${what}`), began = performance.now();
  let place = null;
  const look = () => {
    const film = find(".timeline") ?? find(".film"), before = place;
    place = film && Math.round(film.getBoundingClientRect().top + scrollY);
    if (place !== null && place !== before) film.scrollIntoView({block: "nearest"});
    if (performance.now() - began < 2000) requestAnimationFrame(look);
  };
  look();
}"""
"""To the film of a clip and the line under it: both may be shown later, and move as text above is written."""

NOW_AND_SCROLL = f"(...given) => {{ ({SCROLL_TO_CLIP})(); return ({NOW})(...given) }}"
JUST_SCROLL = f"(...given) => {{ ({SCROLL_TO_CLIP})(); return given }}"

DOWNLOAD = """(file) => {
  const link = document.createElement("a");
  link.href = file.url;
  link.download = file.orig_name ?? file.path.split(/[\\\\/]/).pop();
  link.click();
}"""
