"""The table on the terminal and the JSON file."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from bench.processes import ROOT
from bench.runner import Outcome, Plan

_YARDSTICK = "nginx"


def table(title: str, outcome: Outcome) -> str:
    """Medians, the least and the most of all rounds, and the ratio to nginx."""
    figures = list(dict.fromkeys(name for values in outcome.values() for name in values))
    lines = [title]
    for figure in figures:
        for contestant, values in outcome.items():
            if figure in values:
                lines.append(f"  {figure:<22} {contestant:<14} {_cells(outcome, contestant, figure)}")
    return "\n".join(lines)


def _cells(outcome: Outcome, contestant: str, figure: str) -> str:
    values = outcome[contestant][figure]
    middle = statistics.median(values)
    spread = f"{_number(min(values))} .. {_number(max(values))}"
    base = statistics.median(outcome.get(_YARDSTICK, {}).get(figure, [0.0]))
    ratio = f"{middle / base:8.3f} x nginx" if base and contestant != _YARDSTICK else ""
    return f"{_number(middle):>12}  {spread:<28} {ratio}".rstrip()


def _number(value: float) -> str:
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.3g}"


def document(results: dict[str, Outcome], plan: Plan) -> dict[str, object]:
    """Everything that was measured and where, for a file."""
    layout = plan.place.layout
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _said_by("git", "rev-parse", "--short", "HEAD"),
        "machine": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "kernel": platform.release(),
            "load_average": os.getloadavg()[0],
            "open_files": plan.place.files,
        },
        "layout": {"relay": sorted(layout.relay), "provider": sorted(layout.provider), "load": sorted(layout.load)},
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "parts": results,
    }


def write(path: Path, content: dict[str, object]) -> None:
    """Write `content` as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def _said_by(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    return done.stdout.strip()


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
