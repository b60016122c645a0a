"""The contestants: each relay runs as a process on the relay's core, in front of the same mock provider."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import litellm, meshagent, nginx
from bench.machine import Layout, count_open_files, list_process_tree, read_cpu_s, read_rss_bytes
from bench.processes import free_port, running_process, wait_for_port, wait_for_text
from bench.requests import CLAUDE
from tests import harness

OURS = "tornado-proxy"
#: The same with a budget, whose cost is the difference of the two in one run; and with two budgets.
WITH_BUDGET = "tornado-proxy-budget"
WITH_BUDGETS = "tornado-proxy-budgets"
#: The same with limits of requests, tokens and streams.
WITH_LIMITS = "tornado-proxy-limits"
#: The same with telemetry, whose process runs on the relay's core too.
WITH_TELEMETRY = "tornado-proxy-otlp"
DIRECT = "direct"

#: Environment variables that the configuration of `harness.write_config` reads.
SERVER_SECRETS = {
    "TEST_OPENAI_KEY": harness.OPENAI_KEY,
    "TEST_ANTHROPIC_KEY": harness.ANTHROPIC_KEY,
    "TEST_SIGNING_SECRET": harness.SIGNING_SECRET,
    "TEST_OTHER_SIGNING_SECRET": harness.OTHER_SIGNING_SECRET,
    "TEST_ADMIN_TOKEN": harness.ADMIN_TOKEN,
}


#: Budgets so large that they refuse nothing.
OF_PROJECT = {"period": "month", "usd": "1000000"}
OF_EACH_CALLER = {"period": "day", "usd": "1000000", "per": "participant"}

#: Limits so high, likewise.
HIGH_LIMITS = {
    "requests_per_minute": 10_000_000,
    "tokens_per_minute": 1_000_000_000_000,
    "streams": 1_000_000,
    "per_participant": {"requests_per_minute": 10_000_000},
}


@dataclass(frozen=True, slots=True)
class Contestant:
    """A running relay, or the provider itself (`direct`), whose processes are not measured.

    Attributes:
        headers: those that identify the caller.
        anthropic_prefix: comes before the path of Anthropic's API.
    """

    name: str
    host: str
    port: int
    headers: tuple[tuple[str, str], ...]
    root_pid: int | None = None
    anthropic_prefix: str = ""

    @property
    def base_url(self) -> str:
        """The URL before the path of a request."""
        return f"http://{self.host}:{self.port}"

    @property
    def pids(self) -> list[int]:
        """The processes whose CPU time, memory and files count."""
        return [] if self.root_pid is None else list_process_tree(self.root_pid)

    def read_cpu_s(self) -> float:
        """Return the CPU seconds used so far."""
        return read_cpu_s(self.pids)

    def read_own_cpu_s(self) -> float:
        """Return the CPU seconds of the process that was started, without its children."""
        return 0.0 if self.root_pid is None else read_cpu_s([self.root_pid])

    def read_rss_bytes(self) -> int:
        """Return the resident memory."""
        return read_rss_bytes(self.pids)

    def count_open_files(self) -> int:
        """Return the number of open file descriptors."""
        return count_open_files(self.pids)

    def is_alive(self) -> bool:
        """Return True if the process still runs."""
        try:
            # A zombie still has an entry in /proc, but no memory.
            return self.root_pid is None or self.read_rss_bytes() > 0
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folder of a measurement, its cores, and the limit of open files of a process."""

    folder: Path
    layout: Layout
    max_files: int


_Starter = Callable[[Workspace, int], contextlib.AbstractContextManager[Contestant]]


def list_contestants(*, with_litellm: bool, with_meshagent: bool) -> list[str]:
    """Return the names of the contestants that this machine can run, in the order of the tables."""
    names = [OURS]
    if shutil.which("nginx"):
        names.append("nginx")
    names.append("aiohttp")
    if with_meshagent:
        names.append("meshagent")
    return [*names, "litellm"] if with_litellm else names


@contextlib.contextmanager
def running_provider(workspace: Workspace, *, processes: int) -> Iterator[int]:
    """Run the mock provider; yield its port."""
    log = workspace.folder / "provider.log"
    command = [sys.executable, "-m", "bench.provider", "--processes", str(processes)]
    with running_process(command, workspace.layout.provider, log) as process:
        yield int(wait_for_text(process, log, r"(\d+)\n"))


@contextlib.contextmanager
def running_contestant(name: str, workspace: Workspace, provider_port: int) -> Iterator[Contestant]:
    """Run the contestant `name` in front of the provider, in a folder of its own."""
    folder = workspace.folder / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with _STARTERS[name](Workspace(folder, workspace.layout, workspace.max_files), provider_port) as contestant:
        yield contestant


@contextlib.contextmanager
def _direct(workspace: Workspace, provider_port: int) -> Iterator[Contestant]:
    yield Contestant(DIRECT, "127.0.0.1", provider_port, (("Authorization", "Bearer direct"),))


def _ours(workspace: Workspace, provider_port: int) -> contextlib.AbstractContextManager[Contestant]:
    return serving(OURS, workspace, provider_port)


def _with_budget(workspace: Workspace, provider_port: int) -> contextlib.AbstractContextManager[Contestant]:
    budgets = {"default_project": {"budgets": [OF_PROJECT]}}
    return serving(WITH_BUDGET, workspace, provider_port, budgets=budgets)


def _with_budgets(workspace: Workspace, provider_port: int) -> contextlib.AbstractContextManager[Contestant]:
    budgets = {"default_project": {"budgets": [OF_PROJECT, OF_EACH_CALLER]}}
    return serving(WITH_BUDGETS, workspace, provider_port, budgets=budgets)


def _with_limits(workspace: Workspace, provider_port: int) -> contextlib.AbstractContextManager[Contestant]:
    budgets = {"default_project": {"limits": HIGH_LIMITS}}
    return serving(WITH_LIMITS, workspace, provider_port, budgets=budgets)


@contextlib.contextmanager
def _with_telemetry(workspace: Workspace, provider_port: int) -> Iterator[Contestant]:
    log = workspace.folder / "receiver.log"
    with running_process([sys.executable, "-m", "bench.otlp_receiver"], workspace.layout.provider, log) as receiver:
        port = wait_for_text(receiver, log, r"(\d+)")
        telemetry = {"otlp_endpoint": f"http://127.0.0.1:{port}"}
        with serving(WITH_TELEMETRY, workspace, provider_port, telemetry=telemetry) as contestant:
            yield contestant


@contextlib.contextmanager
def serving(name: str, workspace: Workspace, provider_port: int, **changes: object) -> Iterator[Contestant]:
    """Run our server in front of the provider; `changes` are members of its configuration."""
    config = harness.write_config(
        workspace.folder,
        f"http://127.0.0.1:{provider_port}",
        # With the default, drain, the provider would not see that a client disconnected, which the part abort measures.
        streams={"on_client_disconnect": "cancel"},
        # As many streams as open files, so that the files are the only limit.
        limits={"max_streams": workspace.max_files, "max_streams_per_project": workspace.max_files},
        **changes,
    )
    log = workspace.folder / "serve.log"
    command = [sys.executable, "-m", "tornado_proxy", "serve", "--config", str(config)]
    with running_process(command, workspace.layout.relay, log, SERVER_SECRETS) as process:
        port = int(wait_for_text(process, log, r"clients: http://127\.0\.0\.1:(\d+)"))
        headers = (("Authorization", f"Bearer {harness.mint()}"),)
        yield Contestant(name, "127.0.0.1", port, headers, process.pid, "/anthropic")


@contextlib.contextmanager
def _nginx(workspace: Workspace, provider_port: int) -> Iterator[Contestant]:
    port = free_port()
    config = nginx.write_config(workspace.folder, port, f"127.0.0.1:{provider_port}", workspace.max_files)
    with _listening(workspace, port, ["nginx", "-p", str(workspace.folder), "-c", str(config)]) as process:
        yield Contestant("nginx", "127.0.0.1", port, (("Authorization", "Bearer any"),), process.pid)


@contextlib.contextmanager
def _aiohttp(workspace: Workspace, provider_port: int) -> Iterator[Contestant]:
    port = free_port()
    command = [sys.executable, "-m", "bench.aiohttp_relay", str(port), f"http://127.0.0.1:{provider_port}"]
    with _listening(workspace, port, command) as process:
        yield Contestant("aiohttp", "127.0.0.1", port, (("Authorization", "Bearer any"),), process.pid)


@contextlib.contextmanager
def _litellm(workspace: Workspace, provider_port: int) -> Iterator[Contestant]:
    port = free_port()
    command = litellm.command(workspace.folder, port, f"http://127.0.0.1:{provider_port}", CLAUDE)
    with _listening(workspace, port, command, litellm.ENVIRONMENT) as process:
        headers = (("Authorization", f"Bearer {litellm.MASTER_KEY}"),)
        yield Contestant("litellm", "127.0.0.1", port, headers, process.pid)


@contextlib.contextmanager
def _meshagent(workspace: Workspace, provider_port: int) -> Iterator[Contestant]:
    port = free_port()
    environment = meshagent.make_environment(workspace.folder, f"http://127.0.0.1:{provider_port}")
    with _listening(workspace, port, meshagent.command(port), environment) as process:
        yield Contestant("meshagent", "127.0.0.1", port, (("Authorization", "Bearer any"),), process.pid, "/anthropic")


@contextlib.contextmanager
def _listening(
    workspace: Workspace, port: int, command: list[str], environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    # Errors at the start are shown from this file.
    log = workspace.folder / "output.log"
    with running_process(command, workspace.layout.relay, log, environment) as process:
        wait_for_port(process, log, port)
        yield process


_STARTERS: dict[str, _Starter] = {
    DIRECT: _direct,
    OURS: _ours,
    WITH_BUDGET: _with_budget,
    WITH_BUDGETS: _with_budgets,
    WITH_LIMITS: _with_limits,
    WITH_TELEMETRY: _with_telemetry,
    "nginx": _nginx,
    "aiohttp": _aiohttp,
    "meshagent": _meshagent,
    "litellm": _litellm,
}
