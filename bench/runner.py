"""Runs parts: all contestants of a part live side by side, and take turns round by round (A B C, A B C, ...)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.contestants import DIRECT, OURS, Contestant, Place, provider, running
from bench.load.stream import connect
from bench.parts.base import Part, Round

_WARM_CONNECTIONS, _WARM_STREAMS = 8, 25

#: What a part came to: contestant -> figure -> its value in each round.
Outcome = dict[str, dict[str, list[float]]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    place: Place
    contestants: tuple[str, ...]
    rounds: int
    seconds: int
    scale: float = 1.0
    profile: Path | None = None
    tell: Callable[[str], None] = print


async def run_part(part: Part, plan: Plan) -> Outcome:
    """Measure `part`; a contestant that fails is told of and left out of its remaining rounds."""
    names = [name for name in part.contestants if name in plan.contestants or name == DIRECT]
    outcome: Outcome = {}
    with provider(plan.place, processes=part.provider_processes) as port, contextlib.ExitStack() as stack:
        contestants = {} if part.fresh else {name: await _enter(stack, name, plan, port) for name in names}
        for number in range(min(plan.rounds, part.rounds or plan.rounds)):
            for name in tuple(names):
                plan.tell(f"{part.name}: round {number + 1}, {name}")
                try:
                    with contextlib.ExitStack() as own:
                        contestant = contestants.get(name) or await _enter(own, name, plan, port)
                        figures = await part.measure(Round(plan.place, contestant, plan.seconds, port, plan.scale))
                except (OSError, RuntimeError) as error:  # TimeoutError is an OSError
                    plan.tell(f"{part.name}: {name} is left out: {error or type(error).__name__}\n")
                    names.remove(name)
                    continue
                for figure, value in figures.items():
                    outcome.setdefault(name, {}).setdefault(figure, []).append(value)
        if plan.profile is not None and OURS in contestants:
            await _profile(part, Round(plan.place, contestants[OURS], plan.seconds, port, plan.scale), plan.profile)
    for figure in part.added:
        _subtract_direct(outcome, figure)
    return outcome


def _subtract_direct(outcome: Outcome, figure: str) -> None:
    base = outcome.get(DIRECT, {}).get(figure, [])
    for name, figures in outcome.items():
        if name != DIRECT:
            figures[f"added_{figure}"] = [one - less for one, less in zip(figures[figure], base, strict=False)]


async def _enter(stack: contextlib.ExitStack, name: str, plan: Plan, port: int) -> Contestant:
    """Start a contestant and let it serve a little, so that imports, pools and caches are there."""
    contestant = stack.enter_context(running(name, plan.place, port))
    await asyncio.gather(*(_warm_up(contestant) for _ in range(_WARM_CONNECTIONS)))
    return contestant


async def _warm_up(contestant: Contestant) -> None:
    stream = await connect(contestant)
    for _ in range(_WARM_STREAMS):
        stream.ask("events=3")
        if not await asyncio.wait_for(stream.ended, 30):
            raise RuntimeError(f"{contestant.name} answers {stream.status} and {stream.events} events of 5")
    stream.leave()


def profiler() -> str | None:
    """py-spy, of this Python's environment or of the system; None where there is none."""
    return shutil.which("py-spy", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))


async def _profile(part: Part, now: Round, folder: Path) -> None:
    """One more round, not counted, with py-spy on our server; its stacks go to a file that flame graphs are made of."""
    program = profiler()
    assert program is not None, "else no profile was asked for"
    spy = await asyncio.create_subprocess_exec(
        program, "record", "--pid", str(now.contestant.root_pid), "--duration", str(now.seconds),
        "--format", "raw", "--rate", "250", "--output", str(folder / f"{part.name}.txt"),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await part.measure(now)
        await asyncio.wait_for(spy.wait(), now.seconds + 30)
    finally:
        if spy.returncode is None:
            spy.kill()
            await spy.wait()
