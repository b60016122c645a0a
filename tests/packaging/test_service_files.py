"""The files of systemd, logrotate and Docker, read by the programs that they are for as far as those are installed."""

from __future__ import annotations

import configparser
import json
import re
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.harness import ROOT, running_proxy, wait_until
from tests.replay_provider import ProviderResponse, running_replay_provider
from tests.server.chat import CHAT_RESPONSE, post_chat

PACKAGING = ROOT / "packaging"
UNIT = PACKAGING / "systemd/tornado-proxy.service"
LOGROTATE = PACKAGING / "logrotate/tornado-proxy"
DOCKER = PACKAGING / "docker"

#: The program in the unit, and the one of these tests.
INSTALLED, PROGRAM = "/opt/tornado-proxy/bin/tornado-proxy", str(Path(sys.executable).with_name("tornado-proxy"))

has_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
has_logrotate = pytest.mark.skipif(shutil.which("logrotate") is None, reason="logrotate is not installed")


def drain_seconds() -> float:
    """Return the default of shutdown.drain_s."""
    schema = json.loads((ROOT / "schemas/proxy.schema.json").read_text("utf-8"))
    return float(schema["properties"]["shutdown"]["properties"]["drain_s"]["default"])


def read_unit(section: str = "Service") -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names of settings are case-sensitive
    parser.read(UNIT)
    return parser[section]


@has_systemd
def test_systemd_accepts_the_unit_and_rates_its_exposure_below_1_5(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text("utf-8").replace(INSTALLED, PROGRAM))

    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    assert rated.returncode == 0, rated.stdout


def test_process_managers_wait_longer_than_a_drain() -> None:
    supervisor = configparser.RawConfigParser(inline_comment_prefixes=(";",))
    supervisor.read(ROOT / "conf/supervisord.conf")
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))

    assert float(read_unit()["TimeoutStopSec"]) > drain_seconds()
    assert float(supervisor["program:tornado-proxy"]["stopwaitsecs"]) > drain_seconds()
    assert float(compose["services"]["proxy"]["stop_grace_period"].removesuffix("s")) > drain_seconds()


def test_process_managers_start_the_server_until_its_database_responds() -> None:
    supervisor = configparser.RawConfigParser(inline_comment_prefixes=(";",))
    supervisor.read(ROOT / "conf/supervisord.conf")
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))

    assert (read_unit()["Restart"], read_unit("Unit")["StartLimitIntervalSec"]) == ("always", "0")
    # The n-th retry waits n seconds: a database that needs an hour takes 84 of them.
    assert int(supervisor["program:tornado-proxy"]["startretries"]) > 84
    assert compose["services"]["proxy"]["restart"] == "unless-stopped"


def test_unit_and_image_run_a_command_that_exists() -> None:
    program, *arguments = read_unit()["ExecStart"].split()
    dockerfile = (DOCKER / "Dockerfile").read_text("utf-8")
    command = json.loads(re.findall(r"^CMD (.*)$", dockerfile, re.MULTILINE)[-1])

    assert (program, arguments) == (INSTALLED, command)
    run = subprocess.run([PROGRAM, *command[:-1], "/nowhere/proxy.yaml"], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "/nowhere/proxy.yaml" in run.stderr


@has_logrotate
def test_logrotate_loses_no_line(tmp_path: Path) -> None:
    log = tmp_path / "log/proxy.log"
    with running_replay_provider() as provider:
        provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
        with running_proxy(tmp_path, provider.url, log={"file": "log/proxy.log"}) as proxy:
            sent = [post_chat(proxy).headers["llm-proxy-request-id"]]
            wait_until(lambda: sent[0] in log.read_text(), "the first line is in the file")
            rotate(tmp_path, proxy.process.pid)
            wait_until(lambda: log.exists() and log.read_bytes() == b"", "a new file")
            sent.append(post_chat(proxy).headers["llm-proxy-request-id"])
            wait_until(lambda: bool(log.read_text()), "a line is in the new file")

    assert sent[0] in log.with_name("proxy.log.1").read_text()
    assert sent[1] in log.read_text()


def rotate(folder: Path, pid: int) -> None:
    """Run logrotate with the file of the package, for the log in `folder` and the process `pid`."""
    text = LOGROTATE.read_text("utf-8").replace("/var/log/tornado-proxy/", f"{folder}/log/")
    text = re.sub(r"^ +(su|create) .*\n", "", text, flags=re.MULTILINE)  # this machine has no such account
    text = re.sub(r"systemctl kill --signal=USR1 .*", f"kill -{signal.SIGUSR1.value} {pid}", text)
    config = folder / "logrotate.conf"
    config.write_text(text)
    config.chmod(0o600)
    subprocess.run(
        ["logrotate", "--force", "--state", str(folder / "logrotate.state"), str(config)], timeout=60, check=True
    )


def test_configuration_of_the_container_is_valid_with_the_secrets_of_the_compose_file(tmp_path: Path) -> None:
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))
    for name in compose["services"]["proxy"]["secrets"]:
        assert compose["secrets"][name] == {"file": f"secrets/{name}"}
        (tmp_path / name).write_text(secrets.token_hex(24))
        (tmp_path / name).chmod(0o600)
    config = tmp_path / "proxy.yaml"
    config.write_text((DOCKER / "conf/proxy.yaml").read_text("utf-8").replace("/run/secrets", str(tmp_path)))

    run = subprocess.run(
        [PROGRAM, "check", "--config", str(config)], capture_output=True, text=True, timeout=60, check=False
    )

    assert run.returncode == 0, run.stdout


def test_image_gets_every_folder_that_the_package_needs() -> None:
    dockerfile = (DOCKER / "Dockerfile").read_text("utf-8")
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    copied = {
        source for line in re.findall(r"^COPY (?!--)(.*) \S+$", dockerfile, re.MULTILINE) for source in line.split()
    }

    assert copied == {line[1:] for line in ignored if line.startswith("!")}
    assert [name for name in copied if not (ROOT / name).exists()] == []
    metadata = (ROOT / "setup.cfg").read_text("utf-8")
    package_folders = re.findall(r"^    tornado_proxy\S* = (\w+)", metadata, re.MULTILINE)
    assert set(package_folders) <= copied
