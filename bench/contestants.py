"""Who is measured: each relay as a process of its own on the relay's core, in front of the same provider."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import litellm, nginx
from bench.machine import Layout, cpu_s, family, open_files, rss_bytes
from bench.processes import free_port, started, wait_for_port, wait_for_text
from tests import harness

OURS = "tornado-proxy"
DIRECT = "direct"

#: Environment variables that the configuration of `harness.write_config` reads.
SERVER_SECRETS = {
    "TEST_OPENAI_KEY": harness.OPENAI_KEY,
    "TEST_ANTHROPIC_KEY": harness.ANTHROPIC_KEY,
    "TEST_SIGNING_SECRET": harness.SIGNING_SECRET,
    "TEST_OTHER_SIGNING_SECRET": harness.OTHER_SIGNING_SECRET,
}


@dataclass(frozen=True, slots=True)
class Contestant:
    """A relay that runs, or the provider itself (`direct`), which has no processes that count."""

    name: str
    host: str
    port: int
    headers: tuple[tuple[str, str], ...]
    root_pid: int | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/v1/chat/completions"

    @property
    def pids(self) -> list[int]:
        return [] if self.root_pid is None else family(self.root_pid)

    def cpu_s(self) -> float:
        return cpu_s(self.pids)

    def rss_bytes(self) -> int:
        return rss_bytes(self.pids)

    def open_files(self) -> int:
        return open_files(self.pids)

    def alive(self) -> bool:
        """Whether the process still runs (a zombie has no memory)."""
        try:
            return self.root_pid is None or self.rss_bytes() > 0
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a measurement happens: files of its own, cores, how many files a process may open."""

    folder: Path
    layout: Layout
    files: int


_Starter = Callable[[Place, int], contextlib.AbstractContextManager[Contestant]]


def available(*, with_litellm: bool) -> list[str]:
    """Whom this machine can run, in the order of the table."""
    names = [OURS]
    if shutil.which("nginx"):
        names.append("nginx")
    names.append("aiohttp")
    return [*names, "litellm"] if with_litellm else names


@contextlib.contextmanager
def provider(place: Place, *, processes: int) -> Iterator[int]:
    """The mock provider; gives its port."""
    log = place.folder / "provider.log"
    command = [sys.executable, "-m", "bench.provider", "--processes", str(processes)]
    with started(command, place.layout.provider, log) as process:
        yield int(wait_for_text(process, log, r"(\d+)\n"))


@contextlib.contextmanager
def running(name: str, place: Place, provider_port: int) -> Iterator[Contestant]:
    """The contestant `name` in front of the provider, in a folder of its own."""
    folder = place.folder / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with _STARTERS[name](Place(folder, place.layout, place.files), provider_port) as contestant:
        yield contestant


@contextlib.contextmanager
def _direct(place: Place, provider_port: int) -> Iterator[Contestant]:
    yield Contestant(DIRECT, "127.0.0.1", provider_port, (("Authorization", "Bearer direct"),))


@contextlib.contextmanager
def _ours(place: Place, provider_port: int) -> Iterator[Contestant]:
    config = harness.write_config(
        place.folder,
        f"http://127.0.0.1:{provider_port}",
        streams={"on_client_disconnect": "cancel"},
        limits={"max_streams": place.files},
    )
    log = place.folder / "serve.log"
    command = [sys.executable, "-m", "tornado_proxy", "serve", "--config", str(config)]
    with started(command, place.layout.relay, log, SERVER_SECRETS) as process:
        port = int(wait_for_text(process, log, r"clients: http://127\.0\.0\.1:(\d+)"))
        headers = (("Authorization", f"Bearer {harness.mint()}"),)
        yield Contestant(OURS, "127.0.0.1", port, headers, process.pid)


@contextlib.contextmanager
def _nginx(place: Place, provider_port: int) -> Iterator[Contestant]:
    port = free_port()
    config = nginx.write_config(place.folder, port, f"127.0.0.1:{provider_port}", place.files)
    with _listening(place, port, ["nginx", "-p", str(place.folder), "-c", str(config)]) as process:
        yield Contestant("nginx", "127.0.0.1", port, (("Authorization", "Bearer any"),), process.pid)


@contextlib.contextmanager
def _aiohttp(place: Place, provider_port: int) -> Iterator[Contestant]:
    port = free_port()
    command = [sys.executable, "-m", "bench.aiohttp_relay", str(port), f"http://127.0.0.1:{provider_port}"]
    with _listening(place, port, command) as process:
        yield Contestant("aiohttp", "127.0.0.1", port, (("Authorization", "Bearer any"),), process.pid)


@contextlib.contextmanager
def _litellm(place: Place, provider_port: int) -> Iterator[Contestant]:
    port = free_port()
    command = litellm.command(place.folder, port, f"http://127.0.0.1:{provider_port}")
    with _listening(place, port, command) as process:
        headers = (("Authorization", f"Bearer {litellm.MASTER_KEY}"),)
        yield Contestant("litellm", "127.0.0.1", port, headers, process.pid)


@contextlib.contextmanager
def _listening(place: Place, port: int, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    log = place.folder / "output.log"
    with started(command, place.layout.relay, log) as process:
        wait_for_port(process, log, port)
        yield process


_STARTERS: dict[str, _Starter] = {
    DIRECT: _direct,
    OURS: _ours,
    "nginx": _nginx,
    "aiohttp": _aiohttp,
    "litellm": _litellm,
}
