"""What keeps `tornado-proxy serve` from starting: one clear line, exit status 1, no traceback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness import (
    ANTHROPIC_KEY,
    OPENAI_KEY,
    OTHER_SIGNING_SECRET,
    ROOT,
    SIGNING_SECRET,
    ProxyProcess,
    running_proxy,
    write_config,
)

NOWHERE = "http://127.0.0.1:1"
SECRETS = {
    "TEST_OPENAI_KEY": OPENAI_KEY,
    "TEST_ANTHROPIC_KEY": ANTHROPIC_KEY,
    "TEST_SIGNING_SECRET": SIGNING_SECRET,
    "TEST_OTHER_SIGNING_SECRET": OTHER_SIGNING_SECRET,
}


def serve(config: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Start the server, which has to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "tornado_proxy", "serve", "--config", str(config)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **SECRETS, **environment},
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with running_proxy(tmp_path_factory.mktemp("running"), NOWHERE) as proxy:
        yield proxy


@pytest.mark.parametrize("section", ["listen", "admin"])
def test_a_port_in_use_is_named_with_the_file_that_says_so(section: str, running: ProxyProcess, tmp_path: Path) -> None:
    port = int((running.base_url if section == "listen" else running.admin_url).rpartition(":")[2])
    config = write_config(tmp_path, NOWHERE, **{section: {"host": "127.0.0.1", "port": port}})

    refused = serve(config)

    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr == (
        f"cannot listen on 127.0.0.1:{port}: Address already in use; change listen or admin in {config}, "
        "or stop the process that uses the port\n"
    )


def test_an_address_of_another_machine_is_named(tmp_path: Path) -> None:
    refused = serve(write_config(tmp_path, NOWHERE, listen={"host": "203.0.113.7", "port": 0}))

    assert refused.returncode == 1
    assert refused.stderr.startswith("cannot listen on 203.0.113.7:0: ")
    assert len(refused.stderr.splitlines()) == 1


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    refused = serve(tmp_path / "none.yaml")

    assert refused.returncode == 1
    assert refused.stderr.splitlines()[1:] == [f"{tmp_path}/none.yaml: does not exist; create it or name another file"]


def test_bad_yaml_is_told_with_its_line(tmp_path: Path) -> None:
    config = write_config(tmp_path, NOWHERE)
    config.write_text("listen:\n  port: 1\n bad: [\n")

    refused = serve(config)

    assert refused.returncode == 1
    assert f"{config}:3: invalid YAML" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_provider_key_that_is_not_there_is_told_by_its_variable(tmp_path: Path) -> None:
    refused = serve(write_config(tmp_path, NOWHERE), TEST_OPENAI_KEY="")

    assert refused.returncode == 1
    assert "providers.openai.api_key: environment variable TEST_OPENAI_KEY is empty" in refused.stderr
    assert ANTHROPIC_KEY not in refused.stderr


def test_a_ledger_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    refused = serve(write_config(tmp_path, NOWHERE, ledger={"url": "sqlite:///file/ledger.db"}))

    assert refused.returncode == 1
    assert refused.stderr.startswith(f"the ledger cannot be opened: {tmp_path}/file/ledger.db: ")
    assert len(refused.stderr.splitlines()) == 1


def test_an_ipv6_address_is_printed_as_a_url(tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")

    with running_proxy(tmp_path, NOWHERE, admin={"host": "::1", "port": 0}) as proxy:
        assert proxy.admin_url.startswith("http://[::1]:")
        assert proxy.fetch_admin("/readyz") == (200, "ready\n")
