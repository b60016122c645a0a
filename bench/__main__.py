"""The command `python -m bench`, run from the checkout."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import uvloop

from bench import litellm, meshagent, report, targets
from bench.contestants import Workspace, list_contestants
from bench.machine import Layout, raise_file_limit
from bench.parts import bodies, disconnects, json_responses, open_streams, sse, websocket
from bench.parts.base import Part
from bench.processes import ROOT
from bench.runner import PartResult, Plan, find_profiler, run_part

PARTS: tuple[Part, ...] = (
    *json_responses.PARTS,
    *sse.PARTS,
    *bodies.PARTS,
    *disconnects.PARTS,
    *open_streams.PARTS,
    *websocket.PARTS,
)


def main() -> None:
    """Measure the selected parts, print tables, write the JSON file."""
    options = _make_parser().parse_args()
    if options.profile is not None and find_profiler() is None:
        sys.exit("--profile needs py-spy, which the dev extra installs")
    parts = _select_parts(options.only)
    if options.litellm:
        litellm.install()
    if options.meshagent is not None:
        meshagent.install(options.meshagent)
    contestants = tuple(options.contestants or _list_contestants(options))
    max_files = raise_file_limit()
    # SystemExit unwinds the context managers, which stop the processes that were started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    if options.profile is not None:
        options.profile.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        workspace = Workspace(Path(folder), Layout.assign(options.cores), max_files)
        # This process generates the load of streams, so it must not run on the relay's core.
        os.sched_setaffinity(0, workspace.layout.client)
        plan = Plan(
            workspace, contestants, options.rounds, options.seconds, options.scale, options.profile, _print_progress
        )
        print("\n" + targets.make_table(uvloop.run(_measure(parts, plan, options.json))))
    print(f"\n{options.json}")


def _list_contestants(options: argparse.Namespace) -> list[str]:
    return list_contestants(with_litellm=options.litellm, with_meshagent=options.meshagent is not None)


def _select_parts(selectors: list[str] | None) -> list[Part]:
    """Return the parts with a name or a prefix in `selectors` that this machine can run; all parts for None."""
    names = {part.name for part in PARTS}
    # A full name is no prefix: streams-1000 must not select streams-10000 too.
    prefixes = tuple(selector for selector in selectors or () if selector not in names)
    selected = [part for part in PARTS if not selectors or part.name in selectors or part.name.startswith(prefixes)]
    if not selected:
        sys.exit(f"unknown part {','.join(selectors or ())!r}; the parts are {', '.join(part.name for part in PARTS)}")
    for part in selected:
        if part.needs is not None and shutil.which(part.needs) is None:
            print(f"{part.name} is skipped: {part.needs} is not installed", file=sys.stderr)
    return [part for part in selected if part.needs is None or shutil.which(part.needs) is not None]


async def _measure(parts: list[Part], plan: Plan, file: Path) -> dict[str, PartResult]:
    """Measure part by part.  The file is written after each part, so that an aborted run keeps its figures."""
    results: dict[str, PartResult] = {}
    for part in parts:
        results[part.name] = await run_part(part, plan)
        print("\n" + report.make_table(part.title, results[part.name]), flush=True)
        report.write_json(file, report.make_document(results, plan))
    return results


def _print_progress(line: str) -> None:
    print(f"\r{line:<60}", end="", file=sys.stderr, flush=True)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="see docs/performance.md")
    names = ", ".join(part.name for part in PARTS)
    parser.add_argument("--only", type=_split_names, help=f"parts, by name or prefix, separated by commas: {names}")
    parser.add_argument(
        "--contestants",
        type=_split_names,
        help="tornado-proxy,tornado-proxy-budget,tornado-proxy-budgets,tornado-proxy-limits,tornado-proxy-otlp,nginx,"
        "aiohttp,meshagent,litellm",
    )
    parser.add_argument("--litellm", action="store_true", help="measure LiteLLM's proxy too; installed when missing")
    parser.add_argument(
        "--meshagent",
        type=Path,
        metavar="PYTHON",
        help="measure MeshAgent's local proxy too; a Python 3.13 installs it",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="length of a measurement; wrk's is rounded up")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="factor for numbers of streams and lengths of stalls, at most 1"
    )
    parser.add_argument("--cores", type=_split_cores, default=sorted(os.sched_getaffinity(0)), help="such as 0,1,2,3")
    parser.add_argument("--json", type=Path, default=ROOT / "var" / "bench" / "result.json", help="file for figures")
    parser.add_argument("--profile", type=Path, metavar="FOLDER", help="one more round under py-spy, stacks in FOLDER")
    return parser


def _split_names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _split_cores(text: str) -> list[int]:
    return [int(core) for core in text.split(",")]


if __name__ == "__main__":
    main()
