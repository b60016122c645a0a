from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kept_memory import measure_kept_bytes
from tornado_proxy.domain.identity import Secret
from tornado_proxy.providers.contract import Provider
from tornado_proxy.providers.registry import PROVIDERS
from tornado_proxy.wire.client_facts import find_stated_headers
from tornado_proxy.wire.headers import HOP_BY_HOP, filter_request_headers, filter_response_headers

Pairs = list[tuple[str, str]]

ALLOWED = frozenset({"accept", "content-type", "user-agent", "idempotency-key"})
PREFIXES = ("openai-", "anthropic-", "x-stainless-")
WITHHELD = frozenset({"openai-organization", "openai-project"})
ACCOUNT = frozenset({"openai-organization", "anthropic-organization-id"})

#: Headers that must never reach a provider.  Typed by hand, so that a mistake in the tables of the code fails a test.
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


def filter_up(pairs: Pairs, *, allowed: frozenset[str] = ALLOWED, prefixes: tuple[str, ...] = PREFIXES) -> Pairs:
    return filter_request_headers(pairs, allowed=allowed, prefixes=prefixes, withheld=WITHHELD)


def filter_down(pairs: Pairs, *, keep_length: bool = True) -> Pairs:
    return filter_response_headers(pairs, account_headers=ACCOUNT, keep_length=keep_length)


def test_allowed_request_headers_pass_unchanged() -> None:
    pairs = [
        ("ACCEPT", "text/event-stream"),
        ("anthropic-beta", "one"),
        ("Anthropic-Beta", "two"),
        ("content-type", "application/json; charset=utf-8"),
        ("X-Stainless-Lang", "python"),
        ("User-Agent", "caf\u00e9\t1.0"),
        ("idempotency-key", ""),
    ]

    assert filter_up(pairs) == pairs


def test_other_request_headers_are_dropped() -> None:
    assert (
        filter_up([("X-Custom-Secret", "s"), ("Accept-Language", "de"), ("openai", "no prefix"), ("xopenai-beta", "v")])
        == []
    )


@pytest.mark.parametrize("name", NEVER_UP)
def test_header_is_never_sent_upstream_even_if_configuration_allows_it(name: str) -> None:
    everything = frozenset({name, "accept"})

    for spelled in (name, name.upper(), name.title()):
        assert filter_up([(spelled, "v"), ("Accept", "*/*")], allowed=everything, prefixes=(name, "")) == [
            ("Accept", "*/*")
        ]


@pytest.mark.parametrize(
    "connection",
    [
        pytest.param([("Connection", "anthropic-version, close")], id="first option"),
        pytest.param([("connection", "close,Anthropic-Version")], id="other case, no space"),
        pytest.param(
            [("CONNECTION", "close"), ("Connection", " anthropic-version ")], id="in a second Connection header"
        ),
        pytest.param([("Connection", ",,anthropic-version,")], id="empty options"),
        pytest.param([("Connection ", "anthropic-version")], id="a space in the name"),
    ],
)
def test_headers_named_by_connection_are_dropped(connection: Pairs) -> None:
    pairs = [("Anthropic-Version", "2023-06-01"), *connection, ("Accept", "*/*")]

    assert filter_up(pairs) == [("Accept", "*/*")]
    assert filter_down(pairs) == [("Accept", "*/*")]


@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(("openai-organization ", "org"), id="a space after the name"),
        pytest.param(("openai-organization\t", "org"), id="a tab after the name"),
        pytest.param(("openai-\u212aey", "v"), id="a Kelvin sign, which lower() turns into k"),
        pytest.param(("openai-beta:x", "v"), id="a colon in the name"),
        pytest.param(("openai-beta", "a\r\nAuthorization: Bearer b"), id="a line end in the value"),
        pytest.param(("openai-beta", "a\x00"), id="a NUL in the value"),
        pytest.param(("", "v"), id="no name"),
    ],
)
def test_invalid_header_field_is_dropped_in_both_directions(pair: tuple[str, str]) -> None:
    assert filter_up([pair], prefixes=("",)) == []
    assert filter_down([pair]) == []


def test_response_headers_pass_unchanged() -> None:
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

    assert filter_down(pairs) == pairs


@pytest.mark.parametrize("name", ["x-ratelimit-limit-requests", "X-RateLimit-Reset-Tokens", "x-ratelimit-new-header"])
def test_response_header_with_a_dropped_prefix_does_not_pass(name: str) -> None:
    pairs = [(name, "9"), ("Retry-After", "1"), ("x-ratelimited", "1")]

    assert filter_response_headers(pairs, account_headers=ACCOUNT, prefixes=("x-ratelimit-",)) == pairs[1:]


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
def test_every_header_that_can_carry_a_credential_is_dropped_even_if_it_is_allowed(provider: Provider) -> None:
    for name in (*provider.credential_headers, *provider.key_headers(Secret("k")), "sec-websocket-protocol"):
        assert filter_up([(name, "v")], allowed=frozenset({name.lower()})) == []


@pytest.mark.parametrize("name", NEVER_DOWN)
def test_header_is_never_sent_to_the_client(name: str) -> None:
    for spelled in (name, name.upper(), name.title()):
        assert filter_down([(spelled, "v"), ("Date", "today")]) == [("Date", "today")]


def test_length_and_digests_of_an_edited_body_are_dropped() -> None:
    pairs = [("Content-Length", "12"), ("content-md5", "x"), ("Content-Digest", "y"), ("Content-Type", "text/plain")]

    assert filter_down(pairs, keep_length=False) == [("Content-Type", "text/plain")]
    assert filter_down(pairs) == pairs


NAMES = st.one_of(
    st.sampled_from([*NEVER_UP, *NEVER_DOWN, *ALLOWED, "openai-beta", "anthropic-version", "x-other"]),
    st.text(st.characters(max_codepoint=0x17F), max_size=20),
)
CASED = st.tuples(NAMES, st.sampled_from([str.lower, str.upper, str.title])).map(lambda drawn: drawn[1](drawn[0]))
HEADERS = st.lists(
    st.tuples(st.one_of(CASED, st.just("Connection")), st.one_of(NAMES, st.text(max_size=20))), max_size=12
)


@given(pairs=HEADERS, added=st.frozensets(NAMES.map(str.lower)), prefixes=st.sampled_from([(), PREFIXES, ("",)]))
def test_no_credential_or_hop_by_hop_header_is_sent_upstream(
    pairs: Pairs, added: frozenset[str], prefixes: tuple[str, ...]
) -> None:
    sent = filter_up(pairs, allowed=ALLOWED | added, prefixes=prefixes)

    assert not {name.lower() for name, _ in sent} & {*NEVER_UP, *HOP_BY_HOP}
    assert not {name.lower() for name, _ in sent} & list_connection_options(pairs)
    assert is_subsequence(sent, pairs)


@given(pairs=HEADERS)
def test_no_hop_by_hop_or_account_header_is_sent_to_the_client(pairs: Pairs) -> None:
    sent = filter_down(pairs)

    assert not {name.lower() for name, _ in sent} & {*NEVER_DOWN, *HOP_BY_HOP}
    assert not {name.lower() for name, _ in sent} & list_connection_options(pairs)
    assert is_subsequence(sent, pairs)


def list_connection_options(pairs: Pairs) -> set[str]:
    values = [value for name, value in pairs if name.lower() == "connection"]
    return {name.strip().lower() for value in values for name in value.split(",")}


def is_subsequence(part: Pairs, pairs: Pairs) -> bool:
    rest = iter(pairs)
    return all(pair in rest for pair in part)


def test_heads_of_many_names_are_not_kept() -> None:
    def filter_heads(count: int) -> None:
        for head in range(count):
            headers = [(f"x-{head}-{number}", "1") for number in range(2000)]
            filter_request_headers(headers, allowed=ALLOWED, prefixes=(), withheld=WITHHELD)
            filter_response_headers(headers, account_headers=frozenset())
            find_stated_headers(headers)

    filter_heads(1)
    assert measure_kept_bytes(lambda: filter_heads(20)) < 200_000
