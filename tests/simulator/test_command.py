import re
import signal
import subprocess
import sys

import httpx2
from click.testing import CliRunner

from tornado_proxy.cli import main


def test_command_serves_until_sigterm() -> None:
    command = [sys.executable, "-m", "tornado_proxy", "simulate", "--port", "0", "--require-key", "openai=sk-right"]

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        found = re.search(r"http://\S+", process.stderr.readline())
        assert found is not None
        right = httpx2.get(f"{found.group()}/v1/models", headers={"Authorization": "Bearer sk-right"})
        wrong = httpx2.get(f"{found.group()}/v1/models", headers={"Authorization": "Bearer sk-wrong"})
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()

    assert (right.status_code, wrong.status_code) == (200, 401)
    assert (process.returncode, rest) == (0, "")


def test_key_of_an_unknown_provider_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["simulate", "--port", "0", "--require-key", "other=k"])

    assert result.exit_code == 2
    assert "openai=KEY" in result.output
