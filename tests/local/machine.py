"""A developer's machine: a state folder of its own, and the commands that are run on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.forked_program import ForkedProgram, run_program, start_program
from tests.harness import ROOT
from tests.oauth.real_issuer import RealIssuer

#: Variables of the person who runs the tests that would change a command.
_FOREIGN = ("MESHAGENT_", "OPENAI_", "ANTHROPIC_", "PYTHON_KEYRING_BACKEND")


@dataclass
class Machine:
    """A machine whose state folder is below `home`."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.home / "tornado-proxy"

    @property
    def session_file(self) -> Path:
        return self.state / "session.json"

    @property
    def variables(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        # No keyring by default, as on a server; nothing else of a desktop.
        own = {"XDG_STATE_HOME": str(self.home), "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
        return {
            **inherited,
            **own,
            "PYTHONUNBUFFERED": "1",
            "BROWSER": f"{sys.executable} -m tests.local.browser %s",
        } | (self.environment)

    def start(
        self, *arguments: str, program: str = "tornado_proxy", cwd: Path = ROOT, **environment: str
    ) -> subprocess.Popen[str] | ForkedProgram:
        return start_program(program, arguments, self._environment(environment), cwd=cwd)

    def run(
        self, *arguments: str, program: str = "tornado_proxy", cwd: Path = ROOT, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return run_program(program, arguments, self._environment(environment), cwd)

    def _environment(self, changes: dict[str, str]) -> dict[str, str]:
        return {"PYTHONPATH": str(ROOT), **self.variables, **changes}

    def log_in(self, issuer: RealIssuer, server: str) -> None:
        """Log in as ada at a server, by a browser."""
        done = self.run("login", "--upstream", server, "--issuer", issuer.url, "--client-id", "cli")
        assert done.returncode == 0, done.stderr

    def read_session(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.session_file.read_text())
        return content

    def age_session(self, seconds: float) -> None:
        """Make the session that much older, as if it had been obtained earlier."""
        session = self.read_session()
        obtained_at = datetime.fromisoformat(session["obtained_at"]).astimezone(UTC) - timedelta(seconds=seconds)
        self.session_file.write_text(json.dumps({**session, "obtained_at": obtained_at.isoformat()}))
