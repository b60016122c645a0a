"""Print the tables of docs/performance.md from the JSON file of a run.

python -m bench.tables [var/bench/result.json ...]
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from bench import report, targets
from bench.processes import ROOT
from bench.runner import PartResult


def make_markdown(part: str, result: PartResult) -> str:
    """Return the table of a part: a row for each contestant, a column for each figure, medians of all rounds."""
    figures = list(dict.fromkeys(name for values in result.values() for name in values))
    lines = [f"| {part} | {' | '.join(figures)} |", "|---" * (len(figures) + 1) + "|"]
    for contestant, values in result.items():
        # "-" for a figure that only some contestants have, such as the added delays.
        cells = (
            f"{report.format_number(statistics.median(values[name]))}" if name in values else "-" for name in figures
        )
        lines.append(f"| {contestant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print, for the run of each machine, the table of targets and a table for each part."""
    for file in map(Path, sys.argv[1:] or [str(ROOT / "var" / "bench" / "result.json")]):
        _print_run(json.loads(file.read_text()))


def _print_run(run: dict[str, Any]) -> None:
    machine = run["machine"]
    print(f"{machine['cpu']}, {machine['cores']} cores, kernel {machine['kernel']}, load {machine['load_average']:.1f}")
    print(f"commit {run['commit']}, {run['at']}, {run['rounds']} rounds of {run['seconds']:g} s\n")
    print(targets.make_table(run["parts"]))
    for part, result in run["parts"].items():
        print("\n" + make_markdown(part, result))


if __name__ == "__main__":
    main()
