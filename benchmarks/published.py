"""Where measured figures go: the model's metrics.json, and a table in README.md between two marks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fkp import hub

ROOT = Path(__file__).resolve().parents[1]


def publish(model: Path, benchmark: str, figures: dict[str, Any], table: str) -> None:
    """Put figures into `model`/metrics.json under the benchmark's name, and its table into README.md.

    Raises ValueError when README.md lacks the marks that the table stands between.
    """
    path = model / hub.METRICS
    kept = json.loads(path.read_text()) if path.is_file() else {}
    readme = ROOT / "README.md"
    start, end = f"<!-- {benchmark}: python benchmarks/{benchmark}.py -->", f"<!-- end of {benchmark} -->"
    before, found, rest = readme.read_text().partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"README.md has no place for the table: {start} … {end}")
    path.write_text(json.dumps(kept | {benchmark: figures}, indent=1) + "\n")
    readme.write_text(f"{before}{start}\n{table}\n{end}{after}")
