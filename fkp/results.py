"""What was found in many pictures, written as it comes: JSON and CSV that are whole when a run breaks off."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from csv import reader
from pathlib import Path
from typing import Any, Self

from fkp import outputs, report


class Results:
    """The JSON and CSV of a run over many pictures; either may be None, the JSON also `outputs.STDOUT`.

    After every picture what is on the disk is whole: as `outputs.part` of each file, which gets its name when
    the run has ended, and stays when it breaks off. With `resume` what such a run, or one that ended, has
    written is the beginning of this one; `done` are its pictures, as `report.harmless` has their names.
    Raises `outputs.OutputError` where what a run has left would be lost, unless `force`.
    """

    def __init__(
        self, json: Path | None, csv: Path | None, *, resume: bool = False, force: bool = False
    ) -> None:
        self.json, self.csv = json, csv
        self._held = contextlib.ExitStack()
        self._json: report.JsonArray | None = None
        self._csv: report.CsvTable | None = None
        self._records: list[dict[str, Any]] = []
        self._rows: list[list[str]] = []
        self.done: set[str] = set()
        self._read = [
            path for path in (json, csv) if path and path != outputs.STDOUT and outputs.is_file(path)
        ]
        if resume:
            self._read_back()
        for path in self._read:
            outputs.refuse_claimed(outputs.part(path))
            if outputs.part(path).exists() and not resume and not force:
                left = f"{outputs.part(path)}: is of a run that broke off"
                raise outputs.OutputError(f"{left}; --resume goes on with it, --force begins anew")

    def _read_back(self) -> None:
        for path in self._read:
            source = next((each for each in (_aside(path), outputs.part(path), path) if each.is_file()), None)
            if source is None:
                continue
            text = source.read_text(encoding="utf-8", errors="surrogateescape")
            if path == self.json:
                try:
                    self._records = report.read_json(text)
                except ValueError as error:
                    raise outputs.OutputError(f"{source}: cannot be gone on with, {error}") from None
            else:
                self._rows = [row for row in reader(io.StringIO(text, newline="")) if row][1:]
        # The rows of the last picture need not be all of them.
        names = [row[0] for row in self._rows]
        complete = set(names) - set(names[-1:])
        if self.json in self._read:  # written last, so its pictures are all of them
            self.done = {report.harmless(record["image"]) for record in self._records}
            if complete - self.done:
                held = f"{self.csv}: holds pictures that {self.json} does not, as {min(complete - self.done)}"
                raise outputs.OutputError(f"{held}; go on with either alone")
        else:
            self.done = complete

    def __enter__(self) -> Self:
        for path in self._read:
            # What is there is needed until it is written anew.
            if outputs.part(path).exists() and not _aside(path).exists():
                os.replace(outputs.part(path), _aside(path))
        if self.csv:
            file = outputs.replacing(self.csv, keep=True, newline="", errors="surrogateescape")
            self._csv = report.CsvTable(self._held.enter_context(file))
            if self.json in self._read:
                for record in self._records:
                    self._csv.add(record)
            else:
                self._csv.add_rows(row for row in self._rows if row[0] in self.done)
        if self.json:
            stdout = self.json == outputs.STDOUT
            to = sys.stdout if stdout else self._held.enter_context(outputs.replacing(self.json, keep=True))
            array = self._json = report.JsonArray(to, rewind=self.json in self._read)
            self._held.callback(array.close)
            for record in self._records:
                array.add(record)
        for path in self._read:
            _aside(path).unlink(missing_ok=True)
        return self

    def add(self, record: dict[str, Any]) -> None:
        """One more picture, as `report.record` has it, unless it is there already."""
        if report.harmless(record["image"]) in self.done:
            return
        if self._csv:
            self._csv.add(record)
        if self._json:
            self._json.add(record)

    def __exit__(self, *error: Any) -> None:
        self._held.__exit__(*error)


def _aside(path: Path) -> Path:
    """Where what a run has left is kept until it stands in the new one."""
    return outputs.part(path).with_suffix(".before")
