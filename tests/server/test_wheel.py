"""A wheel installed into a new environment, outside of the checkout, serves requests."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.harness import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of a wheel that was built from this checkout and installed elsewhere.  Needs a package registry."""
    folder = tmp_path_factory.mktemp("wheel")
    # Without a pip of its own the environment is made in a tenth of the time.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True, timeout=60)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    target = ["--python", str(folder / "venv" / "bin" / "python")]
    # Of a folder pip makes a wheel and installs it.
    subprocess.run([*pip, *target, "install", "--no-compile", str(ROOT)], check=True, timeout=200)
    return folder / "venv" / "bin" / "tornado-proxy"


@pytest.mark.timeout(300)
def test_installed_wheel_runs_the_demo_with_its_own_prices_and_schemas(installed: Path, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_API_KEY")}
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(
            [str(installed), "demo", "--port", "0", "--admin-port", "0"],
            cwd=tmp_path,
            env=environment | {"PYTHONUNBUFFERED": "1"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        greeting = _wait_for(tmp_path / "out", "Stop with Ctrl-C")
        base_url = _find(r"export OPENAI_BASE_URL=(\S+)", greeting)
        token = _find(r"export OPENAI_API_KEY=(\S+)", greeting)
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
        answer = httpx.post(f"{base_url}/chat/completions", json=body, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200
        admin_url = _find(r"(http://127\.0\.0\.1:\d+)/metrics", greeting)
        admin_token = (tmp_path / "var" / "demo" / "admin_token").read_text().strip()
        described = httpx.get(f"{admin_url}/openapi.json", headers={"Authorization": f"Bearer {admin_token}"})
        assert described.json()["openapi"] == "3.1.0"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    usage = [str(installed), "usage", "--config", "var/demo/proxy.yaml", "--format", "csv"]
    printed = subprocess.run(usage, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60)
    assert "/v1/chat/completions" in printed.stdout


def _wait_for(path: Path, text: str) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        output = path.read_text()
        if text in output:
            return output
        time.sleep(0.05)
    raise AssertionError(path.read_text())


def _find(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None
    return match[1]
