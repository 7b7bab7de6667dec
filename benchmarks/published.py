"""What the benchmarks share: their arguments, and where figures go.

Figures go into the model's metrics.json, and as tables between marks into README.md and docs/<benchmark>.md.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fkp import hub

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def arguments(description: str) -> argparse.ArgumentParser:
    """What every benchmark takes: the data, the model, whether it is a trial, and whether to publish."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with ytf/, 300w/ and no_faces/")
    parser.add_argument("--model", default=str(hub.BUNDLED), help="folder of the model (default: bundled)")
    parser.add_argument("--limit", metavar="N", type=int, help="a trial with N pictures of each set")
    parser.add_argument("--plots", metavar="DIR", type=Path, help="write the plots (with --write: docs)")
    parser.add_argument("--write", action="store_true", help="write metrics.json and README.md's table")
    return parser


def parse(parser: argparse.ArgumentParser, given: list[str] | None, sheets: str) -> argparse.Namespace:
    """The command line; a wrong one ends the program with status 2 and a sentence.

    `sheets` is the flag, of the benchmark's own, that asks for sheets of pictures by `N DIR`.
    """
    args = parser.parse_args(given)
    asked: list[str] | None = getattr(args, sheets)
    if args.limit is not None and args.limit < 2:
        parser.error("--limit needs two pictures or more")
    if args.write and args.limit is not None:
        parser.error("--write with --limit: figures of a part of the pictures are not published")
    if args.write and asked:
        parser.error(f"--write with --{sheets}: sheets show people of the data sets and are not published")
    if asked:
        count, folder = asked[0], Path(asked[1]).resolve()
        if not count.isdecimal() or not int(count):
            parser.error(f"--{sheets}: {count!r} is not a number of faces")
        if folder.is_relative_to(ROOT):
            parser.error(f"--{sheets}: {asked[1]} is inside the project, where no picture of the data may be")
        setattr(args, sheets, (int(count), folder))
    return args


def parse_default(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line of a benchmark whose published figures are those without any option but --write.

    Ends the program with status 2 and a sentence where --write is given with others.
    """
    args = parser.parse_args()
    if args.write and vars(args) != vars(parser.parse_args(["--write"])):
        parser.error("--write with other options: what is published is the default")
    return args


class Table:
    """A Markdown table that is printed row by row, as it is measured, and can be published in the end."""

    def __init__(self, *head: str) -> None:
        """`head` names the columns; all but the first hold numbers."""
        self.rows: list[str] = []
        self.add(*head)
        self.add("---", *["--:"] * (len(head) - 1))

    def add(self, *cells: str) -> None:
        self.rows.append(f"| {' | '.join(cells)} |")
        print(self.rows[-1], flush=True)

    def write(self, page: Path, name: str, made_by: str) -> None:
        """Put it between the marks of `name` in a page, with the command that made it.

        Raises ValueError when the page lacks the marks.
        """
        text = "\n".join(self.rows) + f"\n\nMade by `{made_by}`."
        benchmark = Path(made_by.split()[1]).stem
        page.write_text(between_marks(page, benchmark, {name: text}))


def publish(
    model: Path,
    benchmark: str,
    figures: dict[str, Any],
    table: str,
    pages: Mapping[str, str] | None = None,
) -> None:
    """Put figures into `model`/metrics.json under the benchmark's name, and its table into README.md.

    `pages` are further tables by name, for docs/<benchmark>.md, where `<benchmark>.<name>` marks their place.
    Raises ValueError when a page lacks the marks that a table stands between; then nothing is written.
    """
    path = model / hub.METRICS
    kept = json.loads(path.read_text()) if path.is_file() else {}
    texts = {ROOT / "README.md": between_marks(ROOT / "README.md", benchmark, {benchmark: table})}
    if pages:
        page = ROOT / "docs" / f"{benchmark}.md"
        texts[page] = between_marks(page, benchmark, {f"{benchmark}.{name}": t for name, t in pages.items()})
    path.write_text(as_json(kept | {benchmark: figures}))
    for page, text in texts.items():
        page.write_text(text)


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


def as_json(figures: dict[str, Any]) -> str:
    """Indented JSON in which a list of numbers stays on one line."""
    text = json.dumps(figures, indent=1, allow_nan=False)
    # No string holds a line break, so a bracket before one opens a list.
    return re.sub(r"\[\n([^\[\]{}]*)\n *\]", lambda m: f"[{' '.join(m[1].split())}]", text) + "\n"
