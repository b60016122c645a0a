"""The command: `python -m bench`, from the checkout."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import uvloop

from bench import litellm, report, targets
from bench.contestants import Place, available
from bench.machine import Layout, raise_file_limit
from bench.parts import bodies, json_answers, leaving, memory, sse, websocket
from bench.parts.base import Part
from bench.processes import ROOT
from bench.runner import Outcome, Plan, profiler, run_part

PARTS: tuple[Part, ...] = (
    *json_answers.PARTS,
    *sse.PARTS,
    *bodies.PARTS,
    *leaving.PARTS,
    *memory.PARTS,
    *websocket.PARTS,
)


def main() -> None:
    """Measure what was asked for, print tables, write the JSON file."""
    options = _parser().parse_args()
    if options.profile is not None and profiler() is None:
        sys.exit("--profile needs py-spy, which the dev extra installs")
    parts = _chosen(options.only)
    if options.litellm:
        litellm.install()
    contestants = tuple(options.contestants or available(with_litellm=options.litellm))
    files = raise_file_limit()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that what was started is stopped
    if options.profile is not None:
        options.profile.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        place = Place(Path(folder), Layout.of(options.cores), files)
        os.sched_setaffinity(0, place.layout.client)
        plan = Plan(place, contestants, options.rounds, options.seconds, options.scale, options.profile, _tell)
        print("\n" + targets.table(uvloop.run(_measure(parts, plan, options.json))))
    print(f"\n{options.json}")


def _chosen(words: list[str] | None) -> list[Part]:
    """The parts that `words` name, in full or by their first letters, as far as this machine can run them."""
    names = {part.name for part in PARTS}
    chosen = [
        part
        for part in PARTS
        if not words or part.name in words or any(part.name.startswith(word) for word in words if word not in names)
    ]
    if not chosen:
        sys.exit(f"no such part; there are {', '.join(part.name for part in PARTS)}")
    for part in chosen:
        if part.needs is not None and shutil.which(part.needs) is None:
            print(f"{part.name} is left out: {part.needs} is not installed", file=sys.stderr)
    return [part for part in chosen if part.needs is None or shutil.which(part.needs) is not None]


async def _measure(parts: list[Part], plan: Plan, file: Path) -> dict[str, Outcome]:
    """Measure part by part; the file holds what there is after each, for a run may be long."""
    results: dict[str, Outcome] = {}
    for part in parts:
        results[part.name] = await run_part(part, plan)
        print("\n" + report.table(part.title, results[part.name]), flush=True)
        report.write(file, report.document(results, plan))
    return results


def _tell(line: str) -> None:
    print(f"\r{line:<60}", end="", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="see docs/performance.md")
    words = [part.name for part in PARTS]
    parser.add_argument("--only", type=_words, help=f"parts, by their first letters, with commas: {', '.join(words)}")
    parser.add_argument("--contestants", type=_words, help="tornado-proxy,nginx,aiohttp,litellm")
    parser.add_argument("--litellm", action="store_true", help="measure LiteLLM's proxy too; installed when missing")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="length of one measurement")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="part of the full numbers of streams, for a quick look"
    )
    parser.add_argument("--cores", type=_cores, default=sorted(os.sched_getaffinity(0)), help="such as 0,1,2,3")
    parser.add_argument("--json", type=Path, default=ROOT / "var" / "bench" / "result.json", help="where figures go")
    parser.add_argument("--profile", type=Path, metavar="FOLDER", help="one more round under py-spy, stacks in FOLDER")
    return parser


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _cores(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    main()
