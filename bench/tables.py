"""The tables of docs/performance.md, from the JSON file of a run.

python -m bench.tables [var/bench/result.json]
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from bench import targets
from bench.processes import ROOT
from bench.runner import Outcome


def markdown(part: str, outcome: Outcome) -> str:
    """One part: a row for each contestant, a column for each figure; medians of all rounds."""
    figures = list(dict.fromkeys(name for values in outcome.values() for name in values))
    lines = [f"| {part} | {' | '.join(figures)} |", "|---" * (len(figures) + 1) + "|"]
    for contestant, values in outcome.items():
        cells = (f"{_number(statistics.median(values[name]))}" if name in values else "-" for name in figures)
        lines.append(f"| {contestant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"


def main() -> None:
    """Print the targets' table and one for each part."""
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "var" / "bench" / "result.json"
    run = json.loads(file.read_text())
    print(f"commit {run['commit']}, {run['at']}, {run['rounds']} rounds of {run['seconds']} s\n")
    print(targets.table(run["parts"]))
    for part, outcome in run["parts"].items():
        print("\n" + markdown(part, outcome))


if __name__ == "__main__":
    main()
