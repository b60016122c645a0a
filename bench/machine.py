"""What the kernel tells of processes, and where they run."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Layout:
    """Which cores belong to whom.  The relay has one for itself; on few cores the others share what is left.

    `load` is where wrk runs, `client` where this process runs, which is the load of streams.
    """

    relay: frozenset[int]
    provider: frozenset[int]
    load: frozenset[int]
    client: frozenset[int]

    @classmethod
    def of(cls, cores: list[int]) -> Layout:
        """The first core for the relay, the next two for the provider, the last two for wrk, the last for us."""
        rest = cores[1:] or cores
        return cls(frozenset(cores[:1]), frozenset(rest[:2]), frozenset(rest[-2:]), frozenset(rest[-1:]))


@contextlib.contextmanager
def on_cores(cores: frozenset[int]) -> Iterator[None]:
    """Run the block on `cores`; what is started meanwhile stays there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_file_limit() -> int:
    """Allow as many open files as the system lets us, for this process and those it starts; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (65536, hard):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, max(limit, hard)))
            return limit
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def cpu_s(pids: list[int]) -> float:
    """Processor seconds, user and system, that `pids` have used so far; all their threads."""
    return sum(sum(map(int, _stat(pid)[11:13])) for pid in pids) / _TICKS_PER_S


def rss_bytes(pids: list[int]) -> int:
    """Resident memory of `pids` together."""
    return sum(int(_stat(pid)[21]) for pid in pids) * _PAGE_BYTES


def open_files(pids: list[int]) -> int:
    """How many descriptors `pids` hold."""
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


def family(pid: int) -> list[int]:
    """`pid` and its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on (proc(5)); the second may hold blanks."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
