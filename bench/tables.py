"""Print the tables of docs/performance.md from the JSON file of a run.

python -m bench.tables [var/bench/result.json]
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

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
    """Print the table of targets and a table for each part."""
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "var" / "bench" / "result.json"
    run = json.loads(file.read_text())
    print(f"commit {run['commit']}, {run['at']}, {run['rounds']} rounds of {run['seconds']} s\n")
    print(targets.make_table(run["parts"]))
    for part, result in run["parts"].items():
        print("\n" + make_markdown(part, result))


if __name__ == "__main__":
    main()
