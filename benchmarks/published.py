"""What the benchmarks share: their arguments, and where figures go.

Figures go into the model's metrics.json, and as a table into README.md between two marks.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from fkp import hub

ROOT = Path(__file__).resolve().parents[1]


def arguments(description: str) -> argparse.ArgumentParser:
    """What every benchmark takes: the data, the model, and whether to publish."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with ytf/, 300w/ and no_faces/")
    parser.add_argument("--model", default=str(hub.BUNDLED), help="folder of the model (default: bundled)")
    parser.add_argument("--write", action="store_true", help="write metrics.json and README.md's table")
    return parser


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
