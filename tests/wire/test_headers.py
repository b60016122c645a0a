from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.wire.headers import HOP_BY_HOP, to_client, to_upstream

Pairs = list[tuple[str, str]]

PASSED = frozenset({"accept", "content-type", "user-agent", "idempotency-key"})
PREFIXES = ("openai-", "anthropic-", "x-stainless-")
WITHHELD = frozenset({"openai-organization", "openai-project"})
ACCOUNT = frozenset({"openai-organization", "anthropic-organization-id"})

#: Never to a provider, typed by hand: whatever the tables of the code say, these must not get through.
NEVER_UP = [
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "cookie",
    "x-auth-token",
    "x-goog-api-key",
    "x-amz-security-token",
    "meshagent-project-id",
    "meshagent-anything",
    "sec-websocket-protocol",
    "sec-websocket-key",
    "x-forwarded-for",
    "x-forwarded-host",
    "forwarded",
    "via",
    "x-real-ip",
    "cf-connecting-ip",
    "true-client-ip",
    "host",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-connection",
    "proxy-authenticate",
    "content-length",
    "accept-encoding",
    "expect",
    "openai-organization",
    "openai-project",
]
NEVER_DOWN = [
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-authenticate",
    "proxy-connection",
    "set-cookie",
    "set-cookie2",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "alt-svc",
    "openai-organization",
    "anthropic-organization-id",
]


def up(pairs: Pairs, *, passed: frozenset[str] = PASSED, prefixes: tuple[str, ...] = PREFIXES) -> Pairs:
    return to_upstream(pairs, passed=passed, prefixes=prefixes, withheld=WITHHELD)


def down(pairs: Pairs, *, keep_length: bool = True) -> Pairs:
    return to_client(pairs, account=ACCOUNT, keep_length=keep_length)


def test_what_is_listed_goes_up_as_it_was_written() -> None:
    pairs = [
        ("ACCEPT", "text/event-stream"),
        ("anthropic-beta", "one"),
        ("Anthropic-Beta", "two"),
        ("content-type", "application/json; charset=utf-8"),
        ("X-Stainless-Lang", "python"),
        ("User-Agent", "caf\u00e9\t1.0"),
        ("idempotency-key", ""),
    ]

    assert up(pairs) == pairs


def test_what_is_not_listed_stays_here() -> None:
    assert (
        up([("X-Custom-Secret", "s"), ("Accept-Language", "de"), ("openai", "no prefix"), ("xopenai-beta", "v")]) == []
    )


@pytest.mark.parametrize("name", NEVER_UP)
def test_it_never_goes_up_even_when_the_config_adds_it(name: str) -> None:
    everything = frozenset({name, "accept"})

    for spelled in (name, name.upper(), name.title()):
        assert up([(spelled, "v"), ("Accept", "*/*")], passed=everything, prefixes=(name, "")) == [("Accept", "*/*")]


@pytest.mark.parametrize(
    "connection",
    [
        pytest.param([("Connection", "anthropic-version, close")], id="first"),
        pytest.param([("connection", "close,Anthropic-Version")], id="other case, no blank"),
        pytest.param([("CONNECTION", "close"), ("Connection", " anthropic-version ")], id="a second line"),
        pytest.param([("Connection", ",,anthropic-version,")], id="empty members"),
        pytest.param([("Connection ", "anthropic-version")], id="a blank in the name"),
    ],
)
def test_what_connection_names_stays_here(connection: Pairs) -> None:
    pairs = [("Anthropic-Version", "2023-06-01"), *connection, ("Accept", "*/*")]

    assert up(pairs) == [("Accept", "*/*")]
    assert down(pairs) == [("Accept", "*/*")]


@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(("openai-organization ", "org"), id="a blank after the name"),
        pytest.param(("openai-organization\t", "org"), id="a tab after the name"),
        pytest.param(("openai-\u212aey", "v"), id="a Kelvin sign, whose small letter is k"),
        pytest.param(("openai-beta:x", "v"), id="a colon in the name"),
        pytest.param(("openai-beta", "a\r\nAuthorization: Bearer b"), id="a line end in the value"),
        pytest.param(("openai-beta", "a\x00"), id="a NUL in the value"),
        pytest.param(("", "v"), id="no name"),
    ],
)
def test_what_cannot_be_written_as_a_header_goes_nowhere(pair: tuple[str, str]) -> None:
    assert up([pair], prefixes=("",)) == []
    assert down([pair]) == []


def test_an_answer_s_headers_go_down_as_they_came() -> None:
    pairs = [
        ("content-type", "text/event-stream; charset=utf-8"),
        ("Content-Length", "12"),
        ("x-request-id", "req_1"),
        ("X-RateLimit-Remaining-Tokens", "9"),
        ("x-dup", "1"),
        ("X-Dup", "2"),
        ("strict-transport-security", "max-age=1"),
        ("openai-processing-ms", "3"),
        ("request-id", ""),
    ]

    assert down(pairs) == pairs


@pytest.mark.parametrize("name", NEVER_DOWN)
def test_it_never_goes_down(name: str) -> None:
    for spelled in (name, name.upper(), name.title()):
        assert down([(spelled, "v"), ("Date", "today")]) == [("Date", "today")]


def test_the_length_and_digests_of_a_body_that_will_be_edited_stay_here() -> None:
    pairs = [("Content-Length", "12"), ("content-md5", "x"), ("Content-Digest", "y"), ("Content-Type", "text/plain")]

    assert down(pairs, keep_length=False) == [("Content-Type", "text/plain")]
    assert down(pairs) == pairs


NAMES = st.one_of(
    st.sampled_from([*NEVER_UP, *NEVER_DOWN, *PASSED, "openai-beta", "anthropic-version", "x-other"]),
    st.text(st.characters(max_codepoint=0x17F), max_size=20),
)
CASED = st.tuples(NAMES, st.sampled_from([str.lower, str.upper, str.title])).map(lambda made: made[1](made[0]))
HEADERS = st.lists(
    st.tuples(st.one_of(CASED, st.just("Connection")), st.one_of(NAMES, st.text(max_size=20))), max_size=12
)


@given(pairs=HEADERS, added=st.frozensets(NAMES.map(str.lower)), prefixes=st.sampled_from([(), PREFIXES, ("",)]))
def test_no_credential_and_no_hop_by_hop_header_ever_goes_up(
    pairs: Pairs, added: frozenset[str], prefixes: tuple[str, ...]
) -> None:
    sent = up(pairs, passed=PASSED | added, prefixes=prefixes)

    assert not {name.lower() for name, _ in sent} & {*NEVER_UP, *HOP_BY_HOP}
    assert not {name.lower() for name, _ in sent} & named_by_connection(pairs)
    assert is_subsequence(sent, pairs)


@given(pairs=HEADERS)
def test_no_hop_by_hop_or_account_header_ever_goes_down(pairs: Pairs) -> None:
    sent = down(pairs)

    assert not {name.lower() for name, _ in sent} & {*NEVER_DOWN, *HOP_BY_HOP}
    assert not {name.lower() for name, _ in sent} & named_by_connection(pairs)
    assert is_subsequence(sent, pairs)


def named_by_connection(pairs: Pairs) -> set[str]:
    values = [value for name, value in pairs if name.lower() == "connection"]
    return {name.strip().lower() for value in values for name in value.split(",")}


def is_subsequence(part: Pairs, whole: Pairs) -> bool:
    rest = iter(whole)
    return all(pair in rest for pair in part)
