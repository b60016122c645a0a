"""Errors that prevent `tornado-proxy serve` from starting: one clear line, exit status 1, no traceback."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.forked_program import run_program
from tests.harness import (
    ANTHROPIC_KEY,
    SECRETS,
    ProxyProcess,
    run_serve,
    running_proxy,
    write_config,
)

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with running_proxy(tmp_path_factory.mktemp("running"), NOWHERE) as proxy:
        yield proxy


def test_two_processes_cannot_have_one_admin_port_of_their_own(running: ProxyProcess, tmp_path: Path) -> None:
    port = running.admin_url.rpartition(":")[2]
    config = write_config(tmp_path, NOWHERE, admin={"host": "127.0.0.1", "port": 0, "reuse_port": True})

    arguments = ["serve", "--config", str(config), "--admin-port", port]
    result = run_program("tornado_proxy", arguments, {**os.environ, **SECRETS})

    assert result.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in result.stderr


@pytest.mark.parametrize("section", ["listen", "admin"])
def test_port_in_use_is_named_with_the_configuration_file(section: str, running: ProxyProcess, tmp_path: Path) -> None:
    port = int((running.base_url if section == "listen" else running.admin_url).rpartition(":")[2])
    config = write_config(tmp_path, NOWHERE, **{section: {"host": "127.0.0.1", "port": port}})

    result = run_serve(config)

    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == (
        f"cannot listen on 127.0.0.1:{port}: Address already in use; change listen or admin in {config}, "
        "or stop the process that uses the port\n"
    )


def test_address_of_another_machine_is_named(tmp_path: Path) -> None:
    result = run_serve(write_config(tmp_path, NOWHERE, listen={"host": "203.0.113.7", "port": 0}))

    assert result.returncode == 1
    assert result.stderr.startswith("cannot listen on 203.0.113.7:0: ")
    assert len(result.stderr.splitlines()) == 1


def test_missing_configuration_is_a_one_line_error(tmp_path: Path) -> None:
    result = run_serve(tmp_path / "none.yaml")

    assert result.returncode == 1
    assert result.stderr.splitlines()[1:] == [f"{tmp_path}/none.yaml: does not exist; create it or name another file"]


def test_invalid_yaml_is_reported_with_its_line(tmp_path: Path) -> None:
    config = write_config(tmp_path, NOWHERE)
    config.write_text("listen:\n  port: 1\n bad: [\n")

    result = run_serve(config)

    assert result.returncode == 1
    assert f"{config}:3: invalid YAML" in result.stderr
    assert "Traceback" not in result.stderr


def test_missing_provider_key_is_reported_with_its_variable(tmp_path: Path) -> None:
    result = run_serve(write_config(tmp_path, NOWHERE), TEST_OPENAI_KEY="")

    assert result.returncode == 1
    assert "providers.openai.api_key: environment variable TEST_OPENAI_KEY is empty" in result.stderr
    assert ANTHROPIC_KEY not in result.stderr


def test_ledger_that_cannot_be_opened_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    result = run_serve(write_config(tmp_path, NOWHERE, ledger={"url": "sqlite:///file/ledger.db"}))

    assert result.returncode == 1
    assert result.stderr.startswith(f"the ledger cannot be opened: {tmp_path}/file/ledger.db: ")
    assert len(result.stderr.splitlines()) == 1


def test_ipv6_address_is_printed_as_a_url(tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")

    with running_proxy(tmp_path, NOWHERE, admin={"host": "::1", "port": 0}) as proxy:
        assert proxy.admin_url.startswith("http://[::1]:")
        assert proxy.fetch_admin("/readyz") == (200, "ready\n")
