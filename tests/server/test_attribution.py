"""Sessions, agents and turns of coding agents, as their own requests state them, in records, reports and logs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import websockets
from click.testing import CliRunner

from tests.harness import (
    KEY_ID,
    OTHER_KEY_ID,
    OTHER_PROJECT,
    PROJECT,
    TIMEOUT_S,
    ProxyProcess,
    mint,
    running_proxy,
    wait_until,
)
from tests.harness import mint_for_other_project as mint_other
from tornado_proxy.cli import main as command_line
from tornado_proxy.simulator import Simulator, running_simulator

CAPTURES = Path(__file__).parent.parent / "fixtures" / "client_requests.jsonl"
CLAUDE_SESSION = "a2097e00-54e3-4f6e-a279-de05e359ab5b"
CODEX_SESSION = "01a2217f-2234-7191-b237-61fb3419bdcf"
SOCKET_SESSION = "01a2217f-23f1-73b3-bbde-449bf328925b"
MODEL = "gpt-4o-mini"
USAGE = f"/accounts/projects/{PROJECT}/llm-proxy/usage"

#: The sources of the end user that the second project trusts.
END_USER_SOURCES = ["header", "safety_identifier", "user", "metadata.user_id"]

#: Headers that the HTTP client sets itself, or that carry the credential.
OWN_HEADERS = {"authorization", "x-api-key", "content-length", "host", "upgrade", "connection"}


def capture(number: int) -> dict[str, str]:
    """Return the headers of a captured request that describe it."""
    headers = json.loads(CAPTURES.read_text().splitlines()[number])["headers"]
    return {
        name: value
        for name, value in headers.items()
        if name.lower() not in OWN_HEADERS and not name.lower().startswith("sec-websocket")
    }


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    return Simulator()


#: A project whose requests must name a team.
STRICT_PROJECT = "2f1c7a90-6a51-4d0b-8b77-94a1c0d5e6f1"
STRICT_KEY = "b7a0d6c2-35e1-4c58-9a3f-0d7c1e2b4a69"


@pytest.fixture(scope="module")
def proxy(simulator: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """A server with one request of Claude Code, one of its sub-agents, and two turns of Codex over a WebSocket."""
    key = {"id": KEY_ID, "secret": {"env": "TEST_SIGNING_SECRET"}}
    other_key = {"id": OTHER_KEY_ID, "secret": {"env": "TEST_OTHER_SIGNING_SECRET"}}
    rules = {"repository": True, "baggage": {"session.id": "agent_session"}, "end_user": END_USER_SOURCES}
    projects = [
        {"id": PROJECT, "name": "first", "api_keys": [key]},
        {"id": OTHER_PROJECT, "name": "other", "api_keys": [other_key], "attribution": rules},
        {
            "id": STRICT_PROJECT,
            "name": "strict",
            "api_keys": [{"id": STRICT_KEY, "secret": {"env": "TEST_SIGNING_SECRET"}}],
            "attribution": {"required_annotations": {"Team": ["research", "sales"]}},
        },
    ]
    with (
        running_simulator(simulator) as url,
        running_proxy(tmp_path_factory.mktemp("attribution"), url, projects=projects) as running,
    ):
        send_message(running, capture(1))
        send_message(running, {**capture(1), "x-claude-code-agent-id": "explorer"})
        asyncio.run(talk(running))
        assert len(running.read_records(count=4)) == 4
        yield running


def send_message(proxy: ProxyProcess, headers: dict[str, str]) -> None:
    body = {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    response = httpx.post(
        f"{proxy.base_url}/anthropic/v1/messages",
        json=body,
        headers={**headers, "Authorization": f"Bearer {mint()}"},
        timeout=TIMEOUT_S,
    )
    assert response.status_code == 200, response.text


def create(proxy: ProxyProcess, headers: dict[str, str], token: str, **members: Any) -> httpx.Response:
    return httpx.post(
        f"{proxy.base_url}/openai/v1/responses",
        json={"model": MODEL, "input": "hi", **members},
        headers={**headers, "Authorization": f"Bearer {token}"},
        timeout=TIMEOUT_S,
    )


async def talk(proxy: ProxyProcess) -> None:
    """Open a WebSocket as Codex does before its first turn, and send two turns."""
    headers = {**capture(3), "Authorization": f"Bearer {mint()}"}
    user_agent = headers.pop("user-agent")
    url = f"ws{proxy.base_url.removeprefix('http')}/openai/v1/responses"
    async with websockets.connect(url, additional_headers=headers, user_agent_header=user_agent) as socket:
        for turn in ("turn-1", "turn-2"):
            metadata = {"session_id": SOCKET_SESSION, "turn_id": turn, "agent_name": "/root", "request_kind": "turn"}
            frame = {"type": "response.create", "model": MODEL, "input": "hi"}
            stated = {"client_metadata": {"x-codex-turn-metadata": json.dumps(metadata)}}
            await socket.send(json.dumps({**frame, **stated}))
            while json.loads(await asyncio.wait_for(socket.recv(), TIMEOUT_S))["type"] != "response.completed":
                pass


def find_record(proxy: ProxyProcess, **members: str) -> dict[str, Any]:
    """Return the only record with these members."""
    found = [record for record in proxy.read_records() if members.items() <= record.items()]
    assert len(found) == 1
    return found[0]


def run_usage(proxy: ProxyProcess, *arguments: str) -> list[dict[str, Any]]:
    ledger = f"sqlite:///{proxy.ledger}"
    printed = CliRunner().invoke(command_line, ["usage", "--ledger", ledger, "--format", "json", *arguments])
    assert printed.exit_code == 0, printed.output
    rows: list[dict[str, Any]] = json.loads(printed.stdout)
    return rows


def test_session_of_claude_code_and_its_sub_agent_are_in_the_records(proxy: ProxyProcess) -> None:
    rows = run_usage(proxy, "--agent-session", CLAUDE_SESSION, "--group-by", "agent,client")

    assert [(row["agent"], row["client"], row["requests"]) for row in rows] == [
        (None, "claude-cli/2.1.197", 1),
        ("explorer", "claude-cli/2.1.197", 1),
    ]


def test_each_turn_on_a_websocket_of_codex_has_records_of_its_own(proxy: ProxyProcess) -> None:
    rows = run_usage(proxy, "--agent-session", SOCKET_SESSION, "--group-by", "turn,agent,request_kind,client")

    assert [(row["turn"], row["agent"], row["request_kind"], row["client"], row["requests"]) for row in rows] == [
        ("turn-1", "/root", "turn", "codex_exec/0.171.0", 1),
        ("turn-2", "/root", "turn", "codex_exec/0.171.0", 1),
    ]


def test_caller_reads_the_cost_of_each_of_its_sessions(proxy: ProxyProcess) -> None:
    query = {"rows": "groups", "group_by": "agent_session", "agent_session": CLAUDE_SESSION}
    response = httpx.get(
        proxy.base_url + USAGE, params=query, headers={"Authorization": f"Bearer {mint()}"}, timeout=TIMEOUT_S
    )

    (row,) = response.json()["usage"]
    assert (row["agent_session"], row["requests"]) == (CLAUDE_SESSION, 2)


def test_log_line_names_session_agent_turn_and_client(proxy: ProxyProcess) -> None:
    lines = [json.loads(line) for line in proxy.log if '"message":"request"' in line.replace(": ", ":")]

    stated = [tuple(line[name] for name in ("agent_session", "agent", "turn", "client")) for line in lines]
    assert (SOCKET_SESSION, "/root", "turn-2", "codex_exec/0.171.0") in stated
    assert (CLAUDE_SESSION, "explorer", None, "claude-cli/2.1.197") in stated


def test_explain_shows_the_fields(proxy: ProxyProcess) -> None:
    record = find_record(proxy, agent="explorer")

    ledger = f"sqlite:///{proxy.ledger}"
    printed = CliRunner().invoke(command_line, ["explain", "--ledger", ledger, record["request_id"]])

    assert f"for       agent session {CLAUDE_SESSION}, agent explorer, client claude-cli/2.1.197\n" in printed.output


def test_project_can_record_repository_and_baggage(proxy: ProxyProcess) -> None:
    assert create(proxy, capture(2), mint_other()).status_code == 200
    assert create(proxy, {"baggage": "session.id=run-7"}, mint_other()).status_code == 200

    proxy.read_records(count=6)
    of_codex, of_baggage = find_record(proxy, agent_session=CODEX_SESSION), find_record(proxy, agent_session="run-7")
    assert of_codex["repository"] == "https://github.com/acme/widgets.git"
    assert of_codex["commit"] == "f34a6273f8740c8704948e27efa65d19c646ccc0"
    assert of_baggage["repository"] is None


CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
MESSAGE = {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
IMAGE = {"model": "gpt-image-1", "prompt": "a cat", "size": "1024x1024"}


@pytest.mark.parametrize(
    ("path", "body", "source"),
    [
        pytest.param("/openai/v1/chat/completions", {**CHAT, "user": "of chat"}, "user", id="chat"),
        pytest.param(
            "/openai/v1/responses",
            {"model": MODEL, "input": "hi", "safety_identifier": "of responses"},
            "safety_identifier",
            id="responses",
        ),
        pytest.param(
            "/openai/v1/responses",
            # Large and of many lines, so that a worker process reads it.
            {"model": MODEL, "input": "word\n" * 20_000, "user": "of large"},
            "user",
            id="large",
        ),
        pytest.param(
            "/openai/v1/embeddings",
            {"model": "text-embedding-3-small", "input": "hi", "user": "of embeddings"},
            "user",
            id="embeddings",
        ),
        pytest.param("/openai/v1/images/generations", {**IMAGE, "user": "of images"}, "user", id="images"),
        pytest.param(
            "/anthropic/v1/messages",
            {**MESSAGE, "metadata": {"user_id": "of messages"}},
            "metadata.user_id",
            id="messages",
        ),
    ],
)
def test_end_user_of_each_endpoint_is_recorded_with_its_source(
    proxy: ProxyProcess, path: str, body: dict[str, Any], source: str, request: pytest.FixtureRequest
) -> None:
    end_user = f"of {request.node.callspec.id}"

    response = httpx.post(
        proxy.base_url + path, json=body, headers={"Authorization": f"Bearer {mint_other()}"}, timeout=TIMEOUT_S
    )

    assert response.status_code == 200, response.text
    wait_until(lambda: end_user in {record["end_user"] for record in proxy.read_records()}, "the record")
    assert find_record(proxy, end_user=end_user)["end_user_source"] == source


def test_end_user_of_an_agent_is_the_one_on_whose_behalf_it_acts(proxy: ProxyProcess) -> None:
    headers = {"Meshagent-On-Behalf-Of": "grace", "Authorization": f"Bearer {mint_other()}"}

    httpx.post(f"{proxy.base_url}/openai/v1/chat/completions", json=CHAT, headers=headers, timeout=TIMEOUT_S)

    wait_until(lambda: bool(run_usage(proxy, "--end-user", "grace")), "the record")
    assert find_record(proxy, end_user="grace")["end_user_source"] == "header"


def mint_strict() -> str:
    return mint(project=STRICT_PROJECT, key_id=STRICT_KEY)


def test_request_without_a_required_annotation_is_rejected_and_not_sent(
    proxy: ProxyProcess, simulator: Simulator
) -> None:
    sent_before = len(simulator.requests)

    response = create(proxy, {"X-Meshagent-Annotation-Team": "legal"}, mint_strict())

    assert (response.status_code, response.json()["error"]["code"]) == (400, "annotations_required")
    assert "one of research, sales" in response.json()["error"]["message"]
    assert len(simulator.requests) == sent_before


def test_websocket_without_a_required_annotation_is_rejected(proxy: ProxyProcess) -> None:
    async def connect() -> None:
        url = f"ws{proxy.base_url.removeprefix('http')}/openai/v1/responses"
        async with websockets.connect(url, additional_headers={"Authorization": f"Bearer {mint_strict()}"}):
            pass

    with pytest.raises(websockets.InvalidStatus) as caught:
        asyncio.run(connect())

    assert caught.value.response.status_code == 400


def test_annotation_groups_the_usage_of_the_ledger_and_of_the_api(proxy: ProxyProcess) -> None:
    token = mint_strict()
    assert create(proxy, {"x-meshagent-annotation-team": "sales"}, token).status_code == 200
    wait_until(lambda: len(run_usage(proxy, "--project", STRICT_PROJECT)) == 1, "the record")

    (of_ledger,) = run_usage(proxy, "--project", STRICT_PROJECT, "--group-by", "annotation.Team")
    response = httpx.get(
        proxy.base_url + USAGE.replace(PROJECT, STRICT_PROJECT),
        params={"rows": "groups", "group_by": "annotation.team"},
        headers={"Authorization": f"Bearer {token}"},
        timeout=TIMEOUT_S,
    )

    assert (of_ledger["annotation.Team"], of_ledger["requests"]) == ("sales", 1)
    (of_api,) = response.json()["usage"]
    assert (of_api["annotation.team"], of_api["total"]) == ("sales", of_ledger["total"])


def test_headers_that_describe_a_request_are_not_forwarded(proxy: ProxyProcess, simulator: Simulator) -> None:
    simulator.requests.clear()

    create(proxy, {**capture(2), "baggage": "a=b", "X-Meshagent-Annotation-Team": "x"}, mint())

    (sent,) = simulator.requests
    names = {name.lower() for name, _ in sent.headers}
    assert not [name for name in names if name.startswith(("x-codex", "x-meshagent")) or name == "baggage"]


def test_cache_report_has_a_row_for_each_session_agent_and_model(proxy: ProxyProcess) -> None:
    rows = run_usage(proxy, "--cache", "--agent-session", CLAUDE_SESSION)

    assert {(row["agent_session"], row["agent"]) for row in rows} == {
        (CLAUDE_SESSION, None),
        (CLAUDE_SESSION, "explorer"),
    }
    assert all(row["read_share"] == "0.0000" and row["requests"] == 1 for row in rows)
