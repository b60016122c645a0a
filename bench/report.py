"""The tables on the terminal and the JSON file."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from bench.processes import ROOT
from bench.runner import PartResult, Plan

_YARDSTICK = "nginx"


def make_table(title: str, result: PartResult) -> str:
    """Return a table with the median, minimum and maximum of all rounds, and the ratio to nginx."""
    figures = list(dict.fromkeys(name for values in result.values() for name in values))
    lines = [title]
    for figure in figures:
        for contestant, values in result.items():
            if figure in values:
                lines.append(f"  {figure:<22} {contestant:<14} {_format_cells(result, contestant, figure)}")
    return "\n".join(lines)


def _format_cells(result: PartResult, contestant: str, figure: str) -> str:
    values = result[contestant][figure]
    median = statistics.median(values)
    spread = f"{format_number(min(values))} .. {format_number(max(values))}"
    # Without nginx the base is 0 and no ratio is shown.
    base = statistics.median(result.get(_YARDSTICK, {}).get(figure, [0.0]))
    ratio = f"{median / base:8.3f} x nginx" if base and contestant != _YARDSTICK else ""
    return f"{format_number(median):>12}  {spread:<28} {ratio}".rstrip()


def format_number(value: float) -> str:
    """Return `value` with three digits, or as an integer if it is one or has more."""
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.3g}"


def make_document(results: dict[str, PartResult], plan: Plan) -> dict[str, object]:
    """Return all figures with the commit, the machine and the options, as JSON members."""
    layout = plan.workspace.layout
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _run_command("git", "rev-parse", "--short", "HEAD"),
        "machine": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "kernel": platform.release(),
            # Shows afterwards whether other work disturbed the run.
            "load_average": os.getloadavg()[0],
            "open_files": plan.workspace.max_files,
        },
        "layout": {"relay": sorted(layout.relay), "provider": sorted(layout.provider), "load": sorted(layout.load)},
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "parts": results,
    }


def write_json(path: Path, content: dict[str, object]) -> None:
    """Write `content` to `path` as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def _run_command(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    return done.stdout.strip()


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
