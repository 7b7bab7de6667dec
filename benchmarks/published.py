"""What the benchmarks share: command lines, Markdown, and where figures go.

Figures go into the model's metrics.json, and as tables between marks into README.md and docs/.
"""

import argparse
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fkp import hub

ROOT = Path(__file__).resolve().parents[1]


def parser(description: str | None) -> argparse.ArgumentParser:
    """A command line with `--write`, whose help is the docstring of the benchmark."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--write", action="store_true", help="publish the figures where the project shows them")
    return made


def data_parser(description: str | None) -> argparse.ArgumentParser:
    """The same of a benchmark that measures a model on the research data."""
    made = parser(description)
    made.add_argument("--data", type=Path, required=True, help="the data folder that README.md describes")
    made.add_argument("--model", default=str(hub.BUNDLED), help="folder of the model (default: bundled)")
    made.add_argument("--limit", metavar="N", type=int, help="a trial with N pictures of each set")
    return made


def parse(
    parser: argparse.ArgumentParser, given: list[str] | None = None, free: Sequence[str] = ()
) -> argparse.Namespace:
    """The command line; a wrong one ends the program with status 2 and a sentence.

    What is published is the default: `--write` goes with `--data` and the options in `free` alone.
    """
    args = parser.parse_args(given)
    if getattr(args, "limit", None) is not None and args.limit < 2:
        parser.error("--limit needs two pictures or more")
    for name, value in vars(args).items():
        if args.write and name not in ("write", "data", *free) and value != parser.get_default(name):
            parser.error(f"--write with --{name.replace('_', '-')}: what is published is the default")
    return args


def table(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """The first `texts` columns to the left, numbers to the right."""
    lines = [head, ["---"] * texts + ["--:"] * (len(head) - texts), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float | None, digits: int = 2) -> str:
    """A rounded number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


class Table:
    """A table of which each row is printed as soon as it is measured."""

    def __init__(self, *head: str) -> None:
        """`head` names the columns; all but the first hold numbers."""
        self.text = table(head, [])
        print(f"\n{self.text}", flush=True)

    def add(self, *cells: str) -> None:
        line = "| " + " | ".join(cells) + " |"
        self.text += f"\n{line}"
        print(line, flush=True)


def publish_table(args: argparse.Namespace, table: Table, page: str, name: str, flags: str = "") -> None:
    """With `--write`: a table into a page, with the command of the benchmark that is called as it is."""
    if args.write:
        text = made_by(table.text, f"python benchmarks/{name}.py{flags} --write")
        publish(name, {page: {name: text}})


def made_by(text: str, command: str) -> str:
    """A table with the command that made it."""
    return f"{text}\n\nMade by `{command}`."


def publish(
    benchmark: str,
    tables: Mapping[str, Mapping[str, str]],
    model: str | Path = "",
    figures: Mapping[str, Any] | None = None,
) -> None:
    """Put tables by name into pages (below the project's folder), and figures into `model`/metrics.json.

    Raises ValueError when a page lacks the marks that a table stands between; then nothing is written.
    """
    texts = {ROOT / page: between_marks(ROOT / page, benchmark, of) for page, of in tables.items()}
    if figures is not None:
        (Path(model) / hub.METRICS).write_text(as_json(measured(model) | {benchmark: figures}))
    for page, text in texts.items():
        page.write_text(text)


def measured(model: str | Path) -> dict[str, Any]:
    """The figures in `model`/metrics.json, by benchmark."""
    path = Path(model) / hub.METRICS
    return json.loads(path.read_text()) if path.is_file() else {}


def between_marks(page: Path, benchmark: str, tables: Mapping[str, str]) -> str:
    """The text of a page with each table put between the marks of its name; all else stays as it is.

    Raises ValueError when the page lacks a mark.
    """
    text = page.read_text()
    for name, table in tables.items():
        start, end = f"<!-- {name}: python benchmarks/{benchmark}.py -->", f"<!-- end of {name} -->"
        before, found, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"{page.name} has no place for the table: {start} … {end}")
        text = f"{before}{start}\n{table}\n{end}{after}"
    return text


def as_json(figures: Mapping[str, Any]) -> str:
    """Indented JSON in which a list of numbers stays on one line."""
    text = json.dumps(figures, indent=1, allow_nan=False)
    # No string holds a line break, so a bracket before one opens a list.
    return re.sub(r"\[\n([^\[\]{}]*)\n *\]", lambda m: f"[{' '.join(m[1].split())}]", text) + "\n"
