"""CPU time, memory and files of processes as the kernel counts them, and the cores that they run on."""

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
    """The cores of each process.  The relay has a core of its own; with few cores the others share the rest.

    `load` is for wrk, `client` for this process, which generates the load of streams.
    """

    relay: frozenset[int]
    provider: frozenset[int]
    load: frozenset[int]
    client: frozenset[int]

    @classmethod
    def assign(cls, cores: list[int]) -> Layout:
        """Assign the first core to the relay, the next two to the provider, the last two to wrk, the last to us."""
        # With a single core all share it, and the figures only show that the benchmark works.
        rest = cores[1:] or cores
        return cls(frozenset(cores[:1]), frozenset(rest[:2]), frozenset(rest[-2:]), frozenset(rest[-1:]))


@contextlib.contextmanager
def on_cores(cores: frozenset[int]) -> Iterator[None]:
    """Run the block on `cores`; processes that it starts stay on them."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_file_limit() -> int:
    """Raise the limit of open files of this process and its children as far as allowed; return the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Enough for 10,000 streams; the hard limit may be in the billions, which makes some programs slow.
    for limit in (65536, hard):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, max(limit, hard)))
            return limit
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def read_cpu_s(pids: list[int]) -> float:
    """Return the CPU seconds, user and system, of all threads of `pids` so far."""
    return sum(sum(map(int, _read_stat(pid)[11:13])) for pid in pids) / _TICKS_PER_S


def read_thread_cpu_ns(pid: int) -> dict[int, int]:
    """Return the CPU time of each thread of a process in ns, by its id; that of its first thread is `pid`."""
    times: dict[int, int] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            # https://docs.kernel.org/scheduler/sched-stats.html, "/proc/<pid>/schedstat"
            times[int(task.name)] = int((task / "schedstat").read_text().split()[0])
    return times


def read_tree_cpu_s(pids: list[int]) -> float:
    """Return the CPU seconds of `pids`, of their descendants, and of those that have ended."""
    ticks = 0
    for pid in {pid for root in pids for pid in list_process_tree(root)}:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended, and its parent counts it
            ticks += sum(map(int, _read_stat(pid)[11:15]))
    return ticks / _TICKS_PER_S


def read_rss_bytes(pids: list[int]) -> int:
    """Return the sum of the resident memory of `pids`."""
    return sum(int(_read_stat(pid)[21]) for pid in pids) * _PAGE_BYTES


def count_open_files(pids: list[int]) -> int:
    """Return the number of file descriptors of `pids`."""
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


def list_process_tree(pid: int) -> list[int]:
    """Return `pid` and its descendants."""
    children: list[str] = []
    # Each thread has its own children: the proxy starts body workers from a thread.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the process has ended
        children = [
            child for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()
        ]
    return [pid, *(descendant for child in children for descendant in list_process_tree(int(child)))]


def _read_stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on (proc(5)); the second may hold blanks."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
