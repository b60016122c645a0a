"""The server under the real supervisord, with the configuration file of the package."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx

from tests.harness import (
    ADMIN_TOKEN,
    POLL_S,
    PROJECT,
    ROOT,
    SECRETS,
    TIMEOUT_S,
    mint,
    read_usage,
    wait_until,
    write_config,
)
from tests.server.blocking_provider import chat, running_blocking_provider
from tests.server.load import Load
from tornado_proxy.simulator import Simulator, running_simulator

_REQUESTS = 20

#: Requests in flight when the first process is restarted.
_HELD = 8
#: Longer than supervisorctl takes to send SIGTERM.
_SLOW = "[[sim first-delay-ms=1500]]"


def find_free_prefix() -> int:
    """Return a number N of three digits such that the ports N00 and N01 are free."""
    for prefix in random.sample(range(200, 320), 100):  # below the range of ports that the kernel gives out
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for number in range(2):
                stack.enter_context(socket.create_server(("127.0.0.1", prefix * 100 + number)))
            return prefix
    raise AssertionError("no two free ports in 100 places")


class Supervised:
    """A supervisord whose folder has conf/ and var/."""

    def __init__(self, folder: Path, upstream: str, **config: Any) -> None:
        self.folder = folder
        self.admin_ports = find_free_prefix()
        for name in ("conf", "var", "bin"):
            (folder / name).mkdir()
        shutil.copy(ROOT / "conf" / "supervisord.conf", folder / "conf")
        write_config(folder / "conf", upstream, **config)
        program = folder / "bin" / "tornado-proxy"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tornado_proxy "$@"\n')
        program.chmod(0o755)

    def configure_processes(self, processes: int) -> None:
        """Make the changes that conf/supervisord.conf describes for several processes."""
        path = self.folder / "conf" / "supervisord.conf"
        text = path.read_text()
        for before, after in (
            ("numprocs = 1", f"numprocs = {processes}"),
            ("process_name = tornado-proxy", "process_name = tornado-proxy_%(process_num)d"),
            ("tornado-proxy.log", "tornado-proxy_%(process_num)d.log"),
            ("tornado-proxy.out", "tornado-proxy_%(process_num)d.out"),
            ("startsecs = 2", "startsecs = 0"),
            ("proxy.yaml\n", f"proxy.yaml --admin-port {self.admin_ports}%(process_num)02d\n"),
        ):
            assert text.count(before) == 1, before
            text = text.replace(before, after)
        path.write_text(text)

    def run(self, module: str, *arguments: str) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            **SECRETS,
        }
        command = [sys.executable, "-W", "ignore", "-m", module, "-c", "conf/supervisord.conf", *arguments]
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def control(self, *arguments: str) -> str:
        """Run a command of supervisorctl; return its output."""
        return self.run("supervisor.supervisorctl", *arguments).communicate(timeout=60)[0]

    def read_records(self) -> list[dict[str, Any]]:
        """Return the records of the ledger."""
        return read_usage(f"sqlite:///{self.folder}/conf/ledger.db")

    def wait_url(self, start: int, name: str = "tornado-proxy") -> str:
        """Return the URL of a process since its `start`-th start; wait for it."""
        log = self.folder / "var" / f"{name}.log"
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            lines = log.read_text().splitlines() if log.exists() else []
            found = [line.partition("clients: ")[2] for line in lines if line.startswith("clients: ")]
            if len(found) >= start:
                return found[start - 1]
            time.sleep(POLL_S)
        raise AssertionError(f"no start number {start} in the log")


@contextlib.contextmanager
def supervised(upstream: str, processes: int = 1, **config: Any) -> Iterator[Supervised]:
    # A short path: the path of a Unix socket has at most 107 bytes (unix(7)).
    with tempfile.TemporaryDirectory(prefix="sv") as folder:
        supervisor = Supervised(Path(folder), upstream, **config)
        if processes > 1:
            supervisor.configure_processes(processes)
        daemon = supervisor.run("supervisor.supervisord", "-n")
        try:
            yield supervisor
        finally:
            daemon.terminate()
            daemon.communicate(timeout=60)


def post(base_url: str, text: str) -> int:
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}]}
    headers = {"Authorization": f"Bearer {mint()}"}
    return httpx.post(f"{base_url}/v1/chat/completions", json=body, headers=headers, timeout=TIMEOUT_S).status_code


def test_restart_under_load_completes_accepted_requests_and_loses_no_record() -> None:
    simulator = Simulator(record=True)
    with running_simulator(simulator) as url, supervised(url) as supervisor, ThreadPoolExecutor(_REQUESTS) as threads:
        first = supervisor.wait_url(1)
        requests = [threads.submit(post, first, _SLOW) for _ in range(_REQUESTS)]
        wait_until(lambda: len(simulator.requests) == _REQUESTS, "all requests at the provider")

        output = supervisor.control("restart", "tornado-proxy")

        assert [request.result() for request in requests] == [200] * _REQUESTS
        assert "tornado-proxy: started" in output
        assert post(supervisor.wait_url(2), "Hello") == 200
        assert "RUNNING" in supervisor.control("status")
        assert "stopped" in supervisor.control("stop", "tornado-proxy")
        records = supervisor.read_records()

    assert len(records) == _REQUESTS + 1
    assert {record["basis"] for record in records} == {"reported"}


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """Yield a port that only processes with SO_REUSEPORT can bind."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


def test_two_processes_have_metrics_of_their_own_and_share_access_keys_usage_and_reloads() -> None:
    names = ["tornado-proxy_0", "tornado-proxy_1"]
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    with (
        reserved_port() as port,
        running_simulator(Simulator()) as url,
        supervised(url, 2, listen={"host": "127.0.0.1", "port": port, "reuse_port": True}) as supervisor,
        httpx.Client(headers=headers, timeout=TIMEOUT_S) as client,
    ):
        for name in names:
            supervisor.wait_url(1, name)
        ports = [f"http://127.0.0.1:{supervisor.admin_ports}{number:02d}" for number in range(2)]

        def read_metric(name: str) -> list[float]:
            """Return a metric of each process."""
            texts = [client.get(f"{admin}/metrics").text for admin in ports]
            return [sum(float(value) for value in re.findall(rf"^{name}\S* (\S+)$", text, re.M)) for text in texts]

        created = client.post(f"{ports[0]}/v1/access-keys", json={"name": "ci", "project_id": PROJECT}).json()
        wait_until(lambda: len(set(read_metric("llm_proxy_state_generation"))) == 1, "the key in both processes")
        key = {"Authorization": f"Bearer {created['secret']}"}
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
        # A connection for each request, so that the kernel gives requests to both processes.
        for _ in range(40):
            url = f"http://127.0.0.1:{port}/v1/chat/completions"
            assert httpx.post(url, json=body, headers=key, timeout=TIMEOUT_S).status_code == 200
        wait_until(lambda: len(supervisor.read_records()) == 40, "the records of both processes")
        requests = read_metric("llm_proxy_requests_total")
        keys, usage, projects = (
            [client.get(f"{admin}/v1/{path}").json() for admin in ports]
            for path in ("access-keys", "usage", "projects")
        )

        path = supervisor.folder / "conf" / "proxy.yaml"
        path.write_text(path.read_text().replace("surcharge_rate: '0.05'", "surcharge_rate: '0.5'"))
        reloaded = client.post(f"{ports[1]}/reload")
        wait_until(lambda: read_metric("llm_proxy_config_generation") == [2, 2], "the reload of both processes")
        time.sleep(1.5)  # one more poll: neither process reloads twice
        generations = read_metric("llm_proxy_config_generation")
        supervisor.control("signal", "HUP", "tornado-proxy:*")
        wait_until(lambda: read_metric("llm_proxy_config_generation") == [3, 3], "the reload by SIGHUP")
        lines = [(supervisor.folder / "var" / f"{name}.log").read_text() for name in names]

    assert (sum(requests), min(requests) > 0) == (40, True)
    assert keys[0] == keys[1]
    assert [key["id"] for key in keys[0]["access_keys"]] == [created["id"]]
    assert usage[0] == usage[1]
    assert usage[0]["summary"]["requests"] == 40
    assert projects[0] == projects[1]
    assert reloaded.json() == {"generation": 2, "dry_run": False, "changes": ["pricing.surcharge_rate"]}
    assert generations == [2, 2]
    assert all(line.count('"action":"reload requested"') == 1 for line in lines)


def test_restart_of_one_of_two_processes_fails_no_request_and_bills_each_once() -> None:
    names = ["tornado-proxy_0", "tornado-proxy_1"]
    with (
        reserved_port() as port,
        running_blocking_provider() as provider,
        supervised(provider.url, 2, listen={"host": "127.0.0.1", "port": port, "reuse_port": True}) as supervisor,
        ThreadPoolExecutor(_HELD) as threads,
    ):
        for name in names:
            assert supervisor.wait_url(1, name) == f"http://127.0.0.1:{port}"
        held = [threads.submit(chat, f"http://127.0.0.1:{port}", f"held-{number}") for number in range(_HELD)]
        with Load(f"http://127.0.0.1:{port}", "load") as load:
            wait_until(lambda: len(provider.users) > _HELD + 50, "load")
            threading.Timer(0.5, provider.release.set).start()
            assert "started" in supervisor.control("restart", f"tornado-proxy:{names[0]}")
            supervisor.wait_url(2, names[0])
            seen = len(load.succeeded)
            wait_until(lambda: len(load.succeeded) > seen + 50, "load after the restart")
        assert [request.result().status_code for request in held] == [200] * _HELD
        supervisor.control("stop", "tornado-proxy:*")
        logs = [(supervisor.folder / "var" / f"{name}.log").read_text() for name in names]
        records = supervisor.read_records()

    answered = {*load.succeeded, *(f"held-{number}" for number in range(_HELD))}
    assert set(provider.users) == answered  # every response of the provider has reached its caller
    assert sorted(str(record["participant"]) for record in records) == sorted(answered)
    assert {(record["outcome"], record["basis"]) for record in records} == {("completed", "reported")}
    assert min(log.count('"message":"request"') for log in logs) > 0, "the kernel gave one of them no connection"
    assert [log.count('"message":"stopped"') for log in logs] == [2, 1]
