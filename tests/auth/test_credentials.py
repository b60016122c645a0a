from __future__ import annotations

import pytest

from tornado_proxy.auth.credentials import (
    find_subprotocol_token,
    find_token,
    find_websocket_token,
    has_own_form,
    list_stated_projects,
    require_project,
)
from tornado_proxy.domain.errors import NotAllowed, NotAuthenticated

BEARER = ("authorization",)
EITHER = ("authorization", "x-api-key")
PROTOCOL = "openai-insecure-api-key."

#: {"alg":"HS256"} . {} . a signature: the form of a participant token.
TOKEN = "eyJhbGciOiJIUzI1NiJ9.e30.c2ln"
#: {"alg":"RS256"}: the form of an OAuth access token.
OTHER_TOKEN = "eyJhbGciOiJSUzI1NiJ9.e30.c2ln"


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        pytest.param([("Authorization", "Bearer T0k.en")], BEARER, id="bearer"),
        pytest.param([("AUTHORIZATION", "bEARER T0k.en")], BEARER, id="any case"),
        pytest.param([("authorization", "  Bearer   T0k.en  ")], BEARER, id="spaces around"),
        pytest.param([("Accept", "*/*"), ("X-Api-Key", "T0k.en")], EITHER, id="x-api-key"),
        pytest.param([("x-api-key", "T0k.en"), ("authorization", "Bearer T0k.en")], EITHER, id="both equal"),
        pytest.param([("x-api-key", ""), ("authorization", "Bearer T0k.en")], EITHER, id="x-api-key empty"),
        pytest.param([("x-api-key", "T0k.en"), ("authorization", "Bearer ")], EITHER, id="an empty bearer"),
        pytest.param([("x-api-key", "T0k.en"), ("authorization", "")], EITHER, id="an empty authorization"),
        pytest.param([("x-api-key", "other"), ("authorization", "Bearer T0k.en")], BEARER, id="another header"),
    ],
)
def test_token_is_found_in_accepted_headers(headers: list[tuple[str, str]], accepted: tuple[str, ...]) -> None:
    assert find_token(headers, accepted) == "T0k.en"


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        pytest.param([("Authorization", "Basic dXNlcjpwYXNz")], "Bearer <token>", id="another scheme"),
        pytest.param([("Authorization", "T0k.en")], "Bearer <token>", id="no scheme"),
        pytest.param([("Authorization", "Bearer a"), ("x-api-key", "b")], "two different", id="two tokens"),
        pytest.param([("Authorization", "Bearer a"), ("authorization", "Bearer b")], "more than once", id="two lines"),
        pytest.param([("X-Api-Key", "a"), ("x-api-key", "a")], "more than once", id="two equal lines"),
        pytest.param([("X-Api-Key", ""), ("x-api-key", "a")], "more than once", id="two lines, one empty"),
        pytest.param(
            [("Authorization", "Bearer \u00e9"), ("x-api-key", "\ud800")],
            "two different credentials",
            id="not encodable as UTF-8",
        ),
    ],
)
def test_malformed_or_ambiguous_token_is_rejected_with_401(headers: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(NotAuthenticated, match=message) as rejected:
        find_token(headers, EITHER)

    assert rejected.value.status == 401
    assert "T0k.en" not in rejected.value.message
    assert "dXNlcjpwYXNz" not in rejected.value.message


def test_missing_credential_message_names_the_headers_of_the_route() -> None:
    with pytest.raises(NotAuthenticated, match=r"as Authorization: Bearer <token>$"):
        find_token([("x-api-key", "T0k.en")], BEARER)
    with pytest.raises(NotAuthenticated, match=r"as Authorization: Bearer <token> or x-api-key$"):
        find_token([], EITHER)


@pytest.mark.parametrize(
    ("value", "token"),
    [
        (None, None),
        ("", None),
        ("realtime", None),
        ("realtime, openai-insecure-api-key.T0k.en, openai-beta.realtime-v1", "T0k.en"),
        ("openai-insecure-api-key.T0k.en,openai-insecure-api-key.T0k.en", "T0k.en"),
        ("openai-insecure-api-key.", None),
        ("x-openai-insecure-api-key.T0k.en", None),
    ],
)
def test_token_is_found_in_a_subprotocol(value: str | None, token: str | None) -> None:
    assert find_subprotocol_token(value, PROTOCOL) == token


def test_two_different_subprotocol_tokens_are_rejected() -> None:
    with pytest.raises(NotAuthenticated, match="two different credentials"):
        find_subprotocol_token(f"{PROTOCOL}a, {PROTOCOL}b", PROTOCOL)


@pytest.mark.parametrize(
    ("token", "own"),
    [
        pytest.param(TOKEN, True, id="participant token"),
        pytest.param(OTHER_TOKEN, True, id="access token"),
        pytest.param("tp_4mDGs0", True, id="access key"),
        pytest.param("ek_7d0e8a72.gAAAAA", True, id="session key of ours"),
        pytest.param("ek_68af296e8e408191a1120ab6383263c5", False, id="session key of the provider"),
        pytest.param("sk-ant-api03-aaa", False, id="provider key"),
        pytest.param("tpl_4mDGs0", False, id="bearer of a local proxy"),
        pytest.param("a.b.c", False, id="three segments without a header"),
        pytest.param("e30.e30.c2ln", False, id="no alg"),
        pytest.param(f"{TOKEN}.more", False, id="four segments"),
    ],
)
def test_form_of_a_credential_is_recognised(token: str, own: bool) -> None:
    assert has_own_form(token) is own


@pytest.mark.parametrize(
    "leftover",
    [
        pytest.param(("x-api-key", "local-bearer"), id="a local bearer"),
        pytest.param(("x-api-key", "sk-ant-api03-leftover"), id="a provider key"),
        pytest.param(("X-Api-Key", "ek_68af296e8e408191a1120ab6383263c5"), id="a session key of the provider"),
    ],
)
def test_leftover_credential_beside_a_token_is_dropped(leftover: tuple[str, str]) -> None:
    assert find_token([("Authorization", f"Bearer {TOKEN}"), leftover], EITHER) == TOKEN
    assert find_token([leftover, ("Authorization", f"Bearer {TOKEN}")], EITHER) == TOKEN


@pytest.mark.parametrize("value", ["Bearer sk-leftover", "Basic dXNlcjpwYXNz"])
def test_leftover_authorization_beside_a_token_is_dropped(value: str) -> None:
    assert find_token([("Authorization", value), ("x-api-key", TOKEN)], EITHER) == TOKEN
    upgrade = [("Authorization", value), ("Sec-WebSocket-Protocol", f"realtime, {PROTOCOL}{TOKEN}")]
    assert find_websocket_token(upgrade, BEARER, PROTOCOL) == TOKEN


def test_two_tokens_of_ours_are_rejected_and_their_headers_named() -> None:
    with pytest.raises(NotAuthenticated, match=r"in authorization and x-api-key; send one$"):
        find_token([("Authorization", f"Bearer {TOKEN}"), ("X-Api-Key", OTHER_TOKEN)], EITHER)
    with pytest.raises(NotAuthenticated, match=r"in authorization and sec-websocket-protocol; send one$"):
        find_websocket_token(
            [("Authorization", f"Bearer {TOKEN}"), ("Sec-WebSocket-Protocol", f"{PROTOCOL}tp_4mDGs0")], BEARER, PROTOCOL
        )


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        pytest.param([("Authorization", "Bearer t")], "t", id="in a header"),
        pytest.param([("Sec-WebSocket-Protocol", f"realtime, {PROTOCOL}t")], "t", id="in a subprotocol"),
        pytest.param(
            [("Sec-WebSocket-Protocol", "realtime"), ("sec-websocket-protocol", f"{PROTOCOL}t")],
            "t",
            id="in the second of two lines",
        ),
        pytest.param(
            [("Authorization", "Bearer t"), ("Sec-WebSocket-Protocol", f"{PROTOCOL}t")], "t", id="both, equal"
        ),
        pytest.param([("Authorization", " "), ("Sec-WebSocket-Protocol", f"{PROTOCOL}t")], "t", id="an empty header"),
        pytest.param(
            [("x-api-key", "other"), ("Sec-WebSocket-Protocol", f"{PROTOCOL}t")],
            "t",
            id="another header",
        ),
    ],
)
def test_token_of_an_upgrade_is_found(headers: list[tuple[str, str]], token: str) -> None:
    assert find_websocket_token(headers, BEARER, PROTOCOL) == token


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        pytest.param([], "no credential", id="none"),
        pytest.param([("Sec-WebSocket-Protocol", "realtime")], "no credential", id="no token among the subprotocols"),
        pytest.param(
            [("Authorization", "Bearer a"), ("Sec-WebSocket-Protocol", f"{PROTOCOL}b")],
            "two different credentials",
            id="two",
        ),
        pytest.param(
            [("Sec-WebSocket-Protocol", f"{PROTOCOL}a, {PROTOCOL}b")],
            "two different credentials",
            id="two subprotocols",
        ),
        pytest.param(
            [("Authorization", "Basic a"), ("Sec-WebSocket-Protocol", f"{PROTOCOL}a")],
            "must be: Bearer",
            id="a malformed header",
        ),
    ],
)
def test_upgrade_without_a_single_token_is_rejected_with_401(headers: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(NotAuthenticated, match=message):
        find_websocket_token(headers, BEARER, PROTOCOL)


PROJECT = "0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10"


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="none"),
        pytest.param([("Meshagent-Project-Id", PROJECT)], id="the same"),
        pytest.param([("meshagent-project-id", f" {PROJECT.upper()} ")], id="in capitals"),
        pytest.param([("Meshagent-Project-Id", "")], id="empty"),
        pytest.param([("Sec-WebSocket-Protocol", f"realtime, meshagent-project-id.{PROJECT}")], id="in a subprotocol"),
    ],
)
def test_project_of_the_token_may_be_stated(headers: list[tuple[str, str]]) -> None:
    require_project(list_stated_projects(headers), PROJECT)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([("Meshagent-Project-Id", "5b0a3c1e-1d57-4a6e-9d53-5b1f2a1f6c77")], id="another"),
        pytest.param([("Meshagent-Project-Id", PROJECT), ("Meshagent-Project-Id", "other")], id="one of two"),
        pytest.param([("Sec-WebSocket-Protocol", "realtime, meshagent-project-id.other")], id="in a subprotocol"),
    ],
)
def test_another_project_than_the_token_s_is_a_403(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(NotAllowed) as rejected:
        require_project(list_stated_projects(headers), PROJECT)

    assert (rejected.value.status, rejected.value.code) == (403, "project_mismatch")
