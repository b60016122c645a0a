"""`connect --api`: a person who has logged in gets a participant token from a server with MeshAgent's REST API."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.harness import PROJECT, running_proxy
from tests.local.machine import Machine
from tests.oauth.real_issuer import RealIssuer
from tests.server.test_oauth import ADA, configure
from tornado_proxy.simulator import running_simulator

SHOW = "import json, os; print(json.dumps(dict(os.environ)))"


@dataclass
class RoomServer:
    """Serves POST /accounts/projects/ID/rooms/ROOM/connect; `requests` are (path, credential, body)."""

    url: str
    status: int = 200
    answer: dict[str, Any] = field(default_factory=lambda: {"jwt": "a.participant.token", "room_name": "lab"})
    requests: list[tuple[str, str | None, bytes]] = field(default_factory=list)


@contextlib.contextmanager
def running_room_server() -> Iterator[RoomServer]:
    server = RoomServer("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.requests.append((self.path, self.headers["Authorization"], body))
            self.send_response(server.status)
            self.end_headers()
            self.wfile.write(json.dumps(server.answer).encode())

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        server.url = f"http://127.0.0.1:{listening.server_port}"
        threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        listening.shutdown()


@pytest.fixture
def server() -> Iterator[RoomServer]:
    with running_room_server() as running:
        yield running


def test_command_gets_the_token_that_the_server_makes(machine: Machine, issuer: RealIssuer, server: RoomServer) -> None:
    machine.log_in(issuer, server.url)

    shown = machine.run(
        "connect", "--api", server.url, "--project", PROJECT, "--room", "lab 1", "--", sys.executable, "-c", SHOW
    )

    environment = json.loads(shown.stdout)
    path = f"/accounts/projects/{PROJECT}/rooms/lab%201/connect"
    assert server.requests == [(path, f"Bearer {machine.read_session()['access_token']}", b"{}")]
    assert environment["MESHAGENT_TOKEN"] == environment["ANTHROPIC_API_KEY"] == "a.participant.token"
    assert (environment["MESHAGENT_API_URL"], environment["MESHAGENT_ROOM"]) == (server.url, "lab 1")
    assert environment["OPENAI_BASE_URL"] == f"{server.url}/openai/v1"


def test_refusal_of_the_server_is_shown(machine: Machine, issuer: RealIssuer, server: RoomServer) -> None:
    machine.log_in(issuer, server.url)
    server.status, server.answer = 403, {"error": {"message": "you are no member"}}

    refused = machine.run("connect", "--api", server.url, "--project", PROJECT, "--room", "lab", "--", "true")

    assert (refused.returncode, "you are no member" in refused.stderr) == (1, True)


def test_token_is_shown_to_the_server_of_the_login_only(
    machine: Machine, issuer: RealIssuer, server: RoomServer
) -> None:
    machine.log_in(issuer, "https://llm.example.com")

    refused = machine.run("connect", "--api", server.url, "--project", PROJECT, "--room", "lab", "--", "true")

    assert (refused.returncode, server.requests) == (2, [])
    assert "you have logged in at https://llm.example.com" in refused.stderr


@pytest.mark.parametrize("option", [("--identity", "eve"), ("--expires-in", "1h"), ("--config", "conf/proxy.yaml")])
def test_options_that_the_server_decides_are_refused(machine: Machine, option: tuple[str, str]) -> None:
    arguments = ("connect", "--api", "http://127.0.0.1:1", "--project", PROJECT, "--room", "lab", *option)

    assert machine.run(*arguments, "--", "true").returncode == 2


def test_connect_without_a_login_names_login(machine: Machine) -> None:
    refused = machine.run("connect", "--api", "http://127.0.0.1:1", "--project", PROJECT, "--room", "lab", "--", "true")

    assert (refused.returncode, "run tornado-proxy login" in refused.stderr) == (1, True)


def test_person_logs_in_and_connects_at_our_own_server(
    machine: Machine, issuer: RealIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_INTROSPECTION_SECRET", "introspection-secret")
    config = configure(issuer, ADA)
    config["oauth"][0]["login"] = {"client_id": "cli"}
    request = "import openai; openai.OpenAI().responses.create(model='gpt-4o-mini', input='hi')"
    with running_simulator() as upstream, running_proxy(tmp_path, upstream, **config) as proxy:
        assert machine.run("login", "--upstream", proxy.base_url).returncode == 0
        done = machine.run(
            "connect", "--project", PROJECT, "--room", "lab", "--", sys.executable, "-c", request, cwd=tmp_path
        )

        assert done.returncode == 0, done.stderr
        (record,) = proxy.read_records(count=1)
        assert (record["participant"], record["room"]) == ("ada@example.com", "lab")
