"""The local proxy of MeshAgent's published command line, in a virtual environment of its own: it needs Python 3.13."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.processes import ROOT

VERSION = "0.56.0"

_FOLDER = ROOT / "var" / "bench" / f"meshagent-{VERSION}"

_PROJECT = "0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10"


def install(interpreter: Path) -> None:
    """Create the environment with `interpreter`, a Python of version 3.13 or later, if it does not exist."""
    if not _program().exists():
        print(f"installing meshagent-cli {VERSION} into {_FOLDER}", file=sys.stderr)
        subprocess.run([interpreter, "-m", "venv", "--clear", _FOLDER], check=True)
        pip = (_FOLDER / "bin" / "python", "-m", "pip", "install", "--quiet")
        subprocess.run([*pip, f"meshagent-cli=={VERSION}"], check=True)


def make_environment(folder: Path, provider: str) -> dict[str, str]:
    """Return the variables of the proxy: a token for the provider, and a home folder without a login."""
    return {"HOME": str(folder), "MESHAGENT_TOKEN": "token-of-the-benchmark", "MESHAGENT_API_URL": provider}


def command(port: int) -> list[str]:
    """Return the command that starts the proxy without its dashboard and without a bearer of its own."""
    options = ["--project-id", _PROJECT, "--port", str(port), "--insecure", "--no-tui"]
    return [str(_program()), "llm", "proxy", *options]


def _program() -> Path:
    return _FOLDER / "bin" / "meshagent"
