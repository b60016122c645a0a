"""The table of clients, over captured requests of Claude Code and Codex, and the bounds of what strangers state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tornado_proxy.domain.attribution import (
    NO_ATTRIBUTION,
    Attribution,
    AttributionRules,
    EndUserSource,
    StatedField,
)
from tornado_proxy.providers.shared.json_body import read_described
from tornado_proxy.wire.client_facts import attribute_request, cut_credentials, find_stated_headers, read_client

CAPTURES = Path(__file__).parent.parent / "fixtures" / "client_requests.jsonl"
CLAUDE, CODEX_HTTP, CODEX_PREWARM, CODEX_WEBSOCKET = 1, 2, 3, 4

RULES = AttributionRules()
WITH_REPOSITORY = AttributionRules(repository=True)

CLAUDE_SESSION = "a2097e00-54e3-4f6e-a279-de05e359ab5b"
CODEX_SESSION = "01a2217f-2234-7191-b237-61fb3419bdcf"
CODEX_TURN = "01a2217f-2266-7863-a75e-926c8f36923a"
SOCKET_SESSION = "01a2217f-23f1-73b3-bbde-449bf328925b"


def capture(number: int) -> dict[str, Any]:
    request: dict[str, Any] = json.loads(CAPTURES.read_text().splitlines()[number])
    return request


def attribute(
    headers: dict[str, str], body: dict[str, Any] | None = None, rules: AttributionRules = RULES
) -> Attribution:
    described = read_described(body or {}, ("user", "metadata", "client_metadata"))
    return attribute_request(find_stated_headers(headers.items()), described, rules)


def attribute_capture(number: int, rules: AttributionRules = RULES) -> Attribution:
    request = capture(number)
    return attribute(request["headers"], request["body"] or None, rules)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        pytest.param(CLAUDE, Attribution(agent_session=CLAUDE_SESSION, client="claude-cli/2.1.197"), id="claude code"),
        pytest.param(
            CODEX_HTTP,
            Attribution(
                agent_session=CODEX_SESSION,
                agent="/root",
                turn=CODEX_TURN,
                request_kind="turn",
                client="codex_exec/0.171.0",
            ),
            id="codex over http",
        ),
        pytest.param(
            CODEX_PREWARM,
            Attribution(
                agent_session=SOCKET_SESSION, agent="/root", request_kind="prewarm", client="codex_exec/0.171.0"
            ),
            id="codex opens a websocket: its turn is empty",
        ),
        pytest.param(0, Attribution(client="Bun/1.4.0"), id="a client that states nothing"),
    ],
)
def test_captured_request_states_these_fields(number: int, expected: Attribution) -> None:
    assert attribute_capture(number) == expected


def test_repository_and_commit_are_recorded_by_a_switch_only() -> None:
    recorded = attribute_capture(CODEX_WEBSOCKET, WITH_REPOSITORY)

    assert recorded.repository == "https://github.com/acme/widgets.git"
    assert recorded.commit == "f34a6273f8740c8704948e27efa65d19c646ccc0"
    assert attribute_capture(CODEX_WEBSOCKET).repository is None
    assert attribute_capture(CODEX_WEBSOCKET).commit is None


def test_body_of_a_frame_counts_more_than_the_headers_of_its_websocket() -> None:
    metadata = json.dumps({"session_id": "s2", "turn_id": "t2", "agent_name": "/root/tests", "request_kind": "turn"})

    found = attribute(capture(CODEX_PREWARM)["headers"], {"client_metadata": {"x-codex-turn-metadata": metadata}})

    assert (found.agent_session, found.turn, found.agent) == ("s2", "t2", "/root/tests")


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        pytest.param(
            {"X-Claude-Code-Session-Id": "s", "x-claude-code-agent-id": "a2", "x-claude-code-parent-agent-id": "a1"},
            None,
            Attribution(agent_session="s", agent="a2", parent_agent="a1"),
            id="a sub-agent of claude code",
        ),
        pytest.param(
            {},
            {"metadata": {"user_id": '{"device_id":"d","account_uuid":"","session_id":"s"}'}},
            Attribution(agent_session="s"),
            id="claude code without its header",
        ),
        pytest.param(
            {},
            {"metadata": {"user_id": f"user_{'a' * 64}_account__session_{CLAUDE_SESSION}"}},
            Attribution(agent_session=CLAUDE_SESSION),
            id="claude code of earlier versions",
        ),
        pytest.param(
            {"session-id": "s", "thread-id": "t", "x-codex-parent-thread-id": "p"},
            None,
            Attribution(agent_session="s", agent="t", parent_agent="p"),
            id="codex without turn metadata",
        ),
        pytest.param({}, {"metadata": {"user_id": "customer-7"}}, NO_ATTRIBUTION, id="a user id is no session"),
        pytest.param({"x-codex-turn-metadata": "{"}, None, NO_ATTRIBUTION, id="metadata that is no json"),
        pytest.param({"x-codex-turn-metadata": "[" * 9000}, None, NO_ATTRIBUTION, id="metadata that nests too deeply"),
        pytest.param({"x-codex-turn-metadata": '{"session_id":7}'}, None, NO_ATTRIBUTION, id="an id that is no text"),
        pytest.param({"baggage": "session.id=s"}, None, NO_ATTRIBUTION, id="baggage without a rule"),
    ],
)
def test_statements_of_clients(headers: dict[str, str], body: dict[str, Any] | None, expected: Attribution) -> None:
    assert attribute(headers, body) == expected


def test_annotations_and_baggage_state_the_fields_that_a_project_lists() -> None:
    rules = AttributionRules(
        annotations={"run": StatedField.AGENT_SESSION},
        baggage={"session.id": StatedField.AGENT_SESSION, "step": StatedField.TURN},
    )
    baggage = {"Baggage": "session.id=from%20baggage;secret=1, step = 3 ,other=x"}

    assert attribute(baggage, rules=rules) == Attribution(agent_session="from baggage", turn="3")
    assert attribute({**baggage, "X-Meshagent-Annotation-Run": "r1"}, rules=rules) == Attribution(
        agent_session="r1", turn="3"
    )


@pytest.mark.parametrize(
    ("sources", "headers", "body", "expected"),
    [
        pytest.param((), {}, {"user": "u"}, (None, None), id="no source is trusted"),
        pytest.param(("user",), {}, {"user": "u"}, ("u", "user"), id="user"),
        pytest.param(("user",), {}, {"safety_identifier": "s"}, (None, None), id="only the listed source"),
        pytest.param(
            ("safety_identifier", "user"),
            {},
            {"user": "u", "safety_identifier": "s"},
            ("s", "safety_identifier"),
            id="the first source of the list counts",
        ),
        pytest.param(
            ("safety_identifier",),
            {"OpenAI-Safety-Identifier": "h"},
            {},
            ("h", "safety_identifier"),
            id="the header of realtime clients",
        ),
        pytest.param(
            ("metadata.user_id",), {}, {"metadata": {"user_id": "m"}}, ("m", "metadata.user_id"), id="metadata"
        ),
        pytest.param(
            ("metadata.user_id",),
            {},
            {"metadata": {"user_id": '{"device_id":"d","account_uuid":"","session_id":"s"}'}},
            ("d", "metadata.user_id"),
            id="the device of claude code without an account",
        ),
        pytest.param(
            ("metadata.user_id",),
            {},
            {"metadata": {"user_id": f"user_{'a' * 64}_account_{CLAUDE_SESSION}_session_{CODEX_SESSION}"}},
            (CLAUDE_SESSION, "metadata.user_id"),
            id="the account of claude code before 2.1",
        ),
        pytest.param(("header",), {"X-Customer": "c\x00"}, {}, ("c?", "header"), id="a header, made printable"),
        pytest.param(("header", "token"), {"X-Customer": " "}, {}, ("ada", "token"), id="an empty header names none"),
    ],
)
def test_end_user_comes_from_the_first_trusted_source_that_names_it(
    sources: tuple[str, ...],
    headers: dict[str, str],
    body: dict[str, Any],
    expected: tuple[str | None, str | None],
) -> None:
    rules = AttributionRules(end_user=tuple(map(EndUserSource, sources)), end_user_header="x-customer")
    described = read_described(body, ("user", "safety_identifier", "metadata"))

    found = attribute_request(find_stated_headers(headers.items(), "x-customer"), described, rules, "ada")

    assert (found.end_user, found.end_user_source) == expected


def test_recorded_text_is_bounded_and_printable() -> None:
    found = attribute({"x-claude-code-session-id": "a\x1b[31m\u202e" + "x" * 300})

    assert found.agent_session == "a?[31m?" + "x" * 249


@pytest.mark.parametrize(
    ("user_agent", "client"),
    [
        ("claude-cli/2.1.197 (external, sdk-cli)", "claude-cli/2.1.197"),
        ("OpenAI/Python 3.57.0", "OpenAI/Python/3.57.0"),
        ("Mozilla/5.0 (X11; Linux x86_64)", "Mozilla/5.0"),
        ("curl", "curl"),
        ("(only a comment)", None),
        ("", None),
    ],
)
def test_client_is_the_first_product_of_the_user_agent(user_agent: str, client: str | None) -> None:
    assert read_client(user_agent) == client


@pytest.mark.parametrize(
    ("address", "recorded"),
    [
        ("https://github.com/acme/widgets.git", "https://github.com/acme/widgets.git"),
        ("https://x-access-token:ghp_secret@github.com/acme/widgets", "https://github.com/acme/widgets"),
        ("https://secret@git.example.com:8443/a/b", "https://git.example.com:8443/a/b"),
        ("git@github.com:acme/widgets.git", "github.com:acme/widgets.git"),
        ("ssh://git@[2001:db8::1]/a", "ssh://[2001:db8::1]/a"),
        ("https://host/a?private_token=secret", "https://host/a"),
        ("https://host/a#secret", "https://host/a"),
        ("https://user:secr/et@host/a", ""),
        ("https://user:sec?ret@host/a", ""),
        ("https://user:sec://ret@host/a", ""),
        ("https://host/a?token=sec@ret", ""),
    ],
)
def test_credentials_are_cut_from_the_address_of_a_repository(address: str, recorded: str) -> None:
    assert cut_credentials(address) == recorded


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            id="version 00",
        ),
        pytest.param(
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-what-the-future-brings",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            id="later version",
        ),
        pytest.param("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None, id="version ff"),
        pytest.param("00-00000000000000000000000000000000-b7ad6b7169203331-01", None, id="trace id of zeros"),
        pytest.param("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", None, id="parent id of zeros"),
        pytest.param("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", None, id="capitals"),
        pytest.param("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-012", None, id="long flags"),
        pytest.param("Bearer secret", None, id="other text"),
    ],
)
def test_traceparent_is_kept_if_it_is_valid(header: str, expected: str | None) -> None:
    stated = find_stated_headers([("Traceparent", header)])

    assert stated.traceparent == expected
    assert stated.values == {}
