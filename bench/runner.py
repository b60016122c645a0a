"""Run parts.  All contestants of a part run at the same time and are measured in turn: A B C, A B C, ...

A slow minute of the machine thus affects all contestants alike, and their ratios remain comparable.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.contestants import DIRECT, OURS, Contestant, Workspace, running_contestant, running_provider
from bench.load.stream import connect
from bench.parts.base import Part, Round

#: Connections, and streams on each, before the first round: imports, pools and caches are complete after them.
_WARM_UP_CONNECTIONS, _WARM_UP_STREAMS = 8, 25

#: The figures of a part: contestant -> figure -> its value in each round.
PartResult = dict[str, dict[str, list[float]]]


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of a run."""

    workspace: Workspace
    contestants: tuple[str, ...]
    rounds: int
    seconds: float
    scale: float = 1.0
    profile: Path | None = None
    print_progress: Callable[[str], None] = print


async def run_part(part: Part, plan: Plan) -> PartResult:
    """Measure `part`.  A contestant that fails is reported and skipped in the remaining rounds."""
    names = [name for name in part.contestants if name in plan.contestants or name == DIRECT]
    result: PartResult = {}
    with running_provider(plan.workspace, processes=part.provider_processes) as port, contextlib.ExitStack() as stack:
        contestants = {} if part.fresh else {name: await _start_contestant(stack, name, plan, port) for name in names}
        for number in range(min(plan.rounds, part.rounds or plan.rounds)):
            for name in tuple(names):
                plan.print_progress(f"{part.name}: round {number + 1}, {name}")
                try:
                    with contextlib.ExitStack() as round_stack:
                        contestant = contestants.get(name) or await _start_contestant(round_stack, name, plan, port)
                        figures = await part.measure(Round(plan.workspace, contestant, plan.seconds, port, plan.scale))
                except (OSError, RuntimeError) as error:  # TimeoutError is an OSError
                    plan.print_progress(f"{part.name}: {name} is skipped: {error or type(error).__name__}\n")
                    names.remove(name)
                    continue
                for figure, value in figures.items():
                    result.setdefault(name, {}).setdefault(figure, []).append(value)
        if plan.profile is not None and OURS in contestants:
            await _profile(part, Round(plan.workspace, contestants[OURS], plan.seconds, port, plan.scale), plan.profile)
    for figure in part.added:
        _subtract_direct(result, figure)
    return result


def _subtract_direct(result: PartResult, figure: str) -> None:
    base = result.get(DIRECT, {}).get(figure, [])
    for name, figures in result.items():
        if name != DIRECT:
            figures[f"added_{figure}"] = [value - direct for value, direct in zip(figures[figure], base, strict=False)]


async def _start_contestant(stack: contextlib.ExitStack, name: str, plan: Plan, port: int) -> Contestant:
    """Start a contestant and warm it up."""
    contestant = stack.enter_context(running_contestant(name, plan.workspace, port))
    await asyncio.gather(*(_warm_up(contestant) for _ in range(_WARM_UP_CONNECTIONS)))
    return contestant


async def _warm_up(contestant: Contestant) -> None:
    stream = await connect(contestant)
    for _ in range(_WARM_UP_STREAMS):
        stream.request_stream("events=3")
        if not await asyncio.wait_for(stream.ended, 30):
            raise RuntimeError(
                f"{contestant.name} responded with status {stream.status} and {stream.events} events of 5"
            )
    stream.disconnect()


def find_profiler() -> str | None:
    """Return the path of py-spy, from this Python's environment or the system, or None."""
    return shutil.which("py-spy", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))


async def _profile(part: Part, round_: Round, folder: Path) -> None:
    """Run an uncounted round with py-spy on our server; its stacks go to a file, the input of flame graph tools."""
    program = find_profiler()
    assert program is not None, "main() checks it"
    spy = await asyncio.create_subprocess_exec(
        program, "record", "--pid", str(round_.contestant.root_pid), "--duration", str(math.ceil(round_.seconds)),
        "--format", "raw", "--rate", "250", "--output", str(folder / f"{part.name}.txt"),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await part.measure(round_)
        await asyncio.wait_for(spy.wait(), round_.seconds + 30)
    finally:
        if spy.returncode is None:
            spy.kill()
            await spy.wait()
