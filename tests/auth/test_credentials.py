from __future__ import annotations

import pytest

from tornado_proxy.auth.credentials import find_socket_token, find_token, only_one, subprotocol_token
from tornado_proxy.domain.errors import NotAuthenticated

BEARER = ("authorization",)
EITHER = ("authorization", "x-api-key")


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        pytest.param([("Authorization", "Bearer T0k.en")], BEARER, id="bearer"),
        pytest.param([("AUTHORIZATION", "bEARER T0k.en")], BEARER, id="any case"),
        pytest.param([("authorization", "  Bearer   T0k.en  ")], BEARER, id="blanks around"),
        pytest.param([("Accept", "*/*"), ("X-Api-Key", "T0k.en")], EITHER, id="x-api-key"),
        pytest.param([("x-api-key", "T0k.en"), ("authorization", "Bearer T0k.en")], EITHER, id="both alike"),
        pytest.param([("x-api-key", ""), ("authorization", "Bearer T0k.en")], EITHER, id="one of them empty"),
        pytest.param([("x-api-key", "T0k.en"), ("authorization", "Bearer ")], EITHER, id="an empty bearer"),
        pytest.param([("x-api-key", "T0k.en"), ("authorization", "")], EITHER, id="an empty authorization"),
        pytest.param([("x-api-key", "other"), ("authorization", "Bearer T0k.en")], BEARER, id="one is not looked at"),
    ],
)
def test_the_token_is_found(headers: list[tuple[str, str]], accepted: tuple[str, ...]) -> None:
    assert find_token(headers, accepted) == "T0k.en"


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        pytest.param([("Authorization", "Basic dXNlcjpwYXNz")], "Bearer <token>", id="another scheme"),
        pytest.param([("Authorization", "T0k.en")], "Bearer <token>", id="no scheme"),
        pytest.param([("Authorization", "Bearer a"), ("x-api-key", "b")], "differ", id="two that differ"),
        pytest.param([("Authorization", "Bearer a"), ("authorization", "Bearer b")], "more than once", id="two lines"),
        pytest.param([("X-Api-Key", "a"), ("x-api-key", "a")], "more than once", id="two lines alike"),
        pytest.param([("X-Api-Key", ""), ("x-api-key", "a")], "more than once", id="two lines, one empty"),
        pytest.param([("Authorization", "Bearer \u00e9"), ("x-api-key", "\ud800")], "differ", id="not even text"),
    ],
)
def test_what_is_not_one_token_is_401(headers: list[tuple[str, str]], says: str) -> None:
    with pytest.raises(NotAuthenticated, match=says) as refused:
        find_token(headers, EITHER)

    assert refused.value.status == 401
    assert "T0k.en" not in refused.value.message
    assert "dXNlcjpwYXNz" not in refused.value.message


def test_without_a_credential_the_message_names_the_headers_of_the_route() -> None:
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
def test_a_browser_s_token_is_found_among_the_subprotocols(value: str | None, token: str | None) -> None:
    assert subprotocol_token(value) == token


def test_two_subprotocol_tokens_that_differ_are_refused() -> None:
    with pytest.raises(NotAuthenticated, match="differ"):
        subprotocol_token("openai-insecure-api-key.a, openai-insecure-api-key.b")


def test_tokens_from_several_places_must_be_one() -> None:
    assert only_one(["a", "a"], BEARER) == "a"
    with pytest.raises(NotAuthenticated, match="differ"):
        only_one(["a", "b"], BEARER)


PROTOCOL = "openai-insecure-api-key."


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        pytest.param([("Authorization", "Bearer t")], "t", id="as in any request"),
        pytest.param([("Sec-WebSocket-Protocol", f"realtime, {PROTOCOL}t")], "t", id="a browser's"),
        pytest.param(
            [("Sec-WebSocket-Protocol", "realtime"), ("sec-websocket-protocol", f"{PROTOCOL}t")],
            "t",
            id="in the second of two lines",
        ),
        pytest.param(
            [("Authorization", "Bearer t"), ("Sec-WebSocket-Protocol", f"{PROTOCOL}t")], "t", id="both, alike"
        ),
        pytest.param([("Authorization", " "), ("Sec-WebSocket-Protocol", f"{PROTOCOL}t")], "t", id="an empty header"),
        pytest.param(
            [("x-api-key", "other"), ("Sec-WebSocket-Protocol", f"{PROTOCOL}t")], "t", id="a header that is none"
        ),
    ],
)
def test_the_token_of_an_upgrade_is_found(headers: list[tuple[str, str]], token: str) -> None:
    assert find_socket_token(headers, ("authorization",)) == token


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        pytest.param([], "no credential", id="none"),
        pytest.param([("Sec-WebSocket-Protocol", "realtime")], "no credential", id="no token among the subprotocols"),
        pytest.param(
            [("Authorization", "Bearer a"), ("Sec-WebSocket-Protocol", f"{PROTOCOL}b")], "two credentials", id="two"
        ),
        pytest.param(
            [("Sec-WebSocket-Protocol", f"{PROTOCOL}a, {PROTOCOL}b")], "two credentials", id="two subprotocols"
        ),
        pytest.param(
            [("Authorization", "Basic a"), ("Sec-WebSocket-Protocol", f"{PROTOCOL}a")],
            "must read",
            id="a malformed header",
        ),
    ],
)
def test_an_upgrade_without_one_token_is_401(headers: list[tuple[str, str]], says: str) -> None:
    with pytest.raises(NotAuthenticated, match=says):
        find_socket_token(headers, ("authorization",))
