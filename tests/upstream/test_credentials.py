"""Which key, which address and which headers each kind of request to a provider has."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests import harness
from tests.gateway.fakes import (
    PROVIDER_URL,
    SESSION_PROVIDER_KEY,
    make_project,
    make_snapshot,
    own_keys,
    seal_session_key,
)
from tornado_proxy.config.settings import ProviderSettings
from tornado_proxy.domain.errors import BadRequest, KeyNotConfigured, NotFound, ServiceError
from tornado_proxy.domain.identity import (
    Caller,
    KeyId,
    Project,
    ProjectProvider,
    ProviderKey,
    Secret,
    SessionGrant,
    fingerprint_key,
)
from tornado_proxy.providers.contract import Provider
from tornado_proxy.snapshot import Snapshot
from tornado_proxy.upstream.credentials import (
    Headers,
    ProviderAccess,
    call_accesses,
    caller_access,
    deferred_access,
    forwarded_headers,
    forwarded_subprotocols,
    project_access,
    reject_token_in_target,
)

OWN_OPENAI_KEY = make_project(providers=own_keys(openai="sk-own-0123456789"))
TOKEN = "token-of-the-client"


def find_provider(snapshot: Snapshot, name: str) -> Provider:
    return snapshot.routes.get_provider(name)


def make_access(provider: str = "openai", **settings: Any) -> ProviderAccess:
    snapshot = make_snapshot(**settings)
    return project_access(snapshot, find_provider(snapshot, provider), harness.PROJECT)


# Which key.


@pytest.mark.parametrize(
    ("projects", "provider", "project_id", "key"),
    [
        pytest.param(None, "openai", harness.PROJECT, harness.OPENAI_KEY, id="server's key"),
        pytest.param(None, "anthropic", harness.PROJECT, harness.ANTHROPIC_KEY, id="server's key of another provider"),
        pytest.param([OWN_OPENAI_KEY], "openai", harness.PROJECT, "sk-own-0123456789", id="project's own key"),
        pytest.param([OWN_OPENAI_KEY], "anthropic", harness.PROJECT, harness.ANTHROPIC_KEY, id="own key for another"),
        pytest.param(
            [OWN_OPENAI_KEY], "openai", harness.OTHER_PROJECT, harness.OPENAI_KEY, id="key of another project"
        ),
        pytest.param([], "openai", harness.PROJECT, harness.OPENAI_KEY, id="project is gone"),
    ],
)
def test_project_s_own_key_replaces_the_server_s(projects: Any, provider: str, project_id: str, key: str) -> None:
    snapshot = make_snapshot(projects=projects)

    access = project_access(snapshot, find_provider(snapshot, provider), project_id)

    assert access.key.reveal() == key
    assert caller_access(snapshot, access.provider, Caller(project_id)).key.reveal() == key


OWN_KEY = Secret("sk-own-0123456789")


@pytest.mark.parametrize(
    ("projects", "made_with", "key"),
    [
        pytest.param([OWN_OPENAI_KEY], Secret(harness.OPENAI_KEY), harness.OPENAI_KEY, id="own key was added later"),
        pytest.param([OWN_OPENAI_KEY], OWN_KEY, "sk-own-0123456789", id="own key"),
        pytest.param([], Secret(harness.OPENAI_KEY), harness.OPENAI_KEY, id="project is gone"),
        pytest.param([OWN_OPENAI_KEY], None, "sk-own-0123456789", id="record of an earlier version"),
    ],
)
def test_deferred_usage_is_requested_with_the_key_that_made_the_request(
    projects: Any, made_with: Secret | None, key: str
) -> None:
    snapshot = make_snapshot(projects=projects)
    key_id = None if made_with is None else KeyId("", fingerprint_key(made_with))

    access = deferred_access(snapshot, find_provider(snapshot, "openai"), harness.PROJECT, key_id)

    assert access.key.reveal() == key


def test_key_that_is_not_configured_is_named_by_its_fingerprint_only() -> None:
    snapshot = make_snapshot()

    with pytest.raises(KeyNotConfigured) as caught:
        deferred_access(
            snapshot, find_provider(snapshot, "openai"), harness.PROJECT, KeyId("", fingerprint_key(OWN_KEY))
        )

    # The first digits of `printf sk-own-0123456789 | sha256sum`.
    assert "47591f1b21b7" in caught.value.message
    assert OWN_KEY.reveal() not in caught.value.message


def session_caller(snapshot: Snapshot) -> Caller:
    return snapshot.authenticator.authenticate(seal_session_key(snapshot), datetime.now(UTC), session_keys=True)


@pytest.mark.parametrize("projects", [None, [OWN_OPENAI_KEY]], ids=["server's key", "own key"])
def test_session_key_is_replaced_by_the_provider_s_short_lived_key(projects: Any) -> None:
    snapshot = make_snapshot(projects=projects)

    access = caller_access(snapshot, find_provider(snapshot, "openai"), session_caller(snapshot))

    assert access.key.reveal() == SESSION_PROVIDER_KEY


def test_session_key_does_not_lead_to_the_account_of_another_project() -> None:
    # The holder of the project's API key can seal any content.
    other = Project(
        harness.OTHER_PROJECT, "other", providers={"openai": ProjectProvider((ProviderKey("own", OWN_KEY),))}
    )
    snapshot = make_snapshot(projects=[make_project(), other])
    grant = SessionGrant(Secret("ek_x"), "model=gpt-realtime", KeyId("own", fingerprint_key(OWN_KEY), own=True))

    with pytest.raises(NotFound):
        caller_access(snapshot, find_provider(snapshot, "openai"), Caller(harness.PROJECT, session=grant))


@pytest.mark.parametrize(
    ("projects", "with_session_key", "keys"),
    [
        pytest.param(None, False, [harness.OPENAI_KEY], id="participant token"),
        pytest.param([OWN_OPENAI_KEY], False, ["sk-own-0123456789"], id="participant token of a project with own key"),
        pytest.param(None, True, [SESSION_PROVIDER_KEY, harness.OPENAI_KEY], id="session key"),
        pytest.param(
            [OWN_OPENAI_KEY], True, [SESSION_PROVIDER_KEY, "sk-own-0123456789"], id="session key, project with own key"
        ),
    ],
)
def test_call_is_reached_with_the_key_that_made_it_and_then_with_a_lasting_one(
    projects: Any, with_session_key: bool, keys: list[str]
) -> None:
    snapshot = make_snapshot(projects=projects)
    caller = session_caller(snapshot) if with_session_key else Caller(harness.PROJECT)
    made_with = caller_access(snapshot, find_provider(snapshot, "openai"), caller)

    accesses = call_accesses(made_with)

    assert [access.key.reveal() for access in accesses] == keys


@pytest.mark.parametrize("projects", [None, [OWN_OPENAI_KEY]], ids=["server's key", "own key"])
def test_provider_without_configuration_is_unavailable_even_with_an_own_key(projects: Any) -> None:
    snapshot = make_snapshot(projects=projects, providers={})

    with pytest.raises(ServiceError, match=r"no key for openai; add providers\.openai") as caught:
        project_access(snapshot, find_provider(snapshot, "openai"), harness.PROJECT)

    assert caught.value.code == "provider_not_configured"


@pytest.mark.parametrize(
    ("provider", "headers"),
    [
        ("openai", [("Authorization", f"Bearer {harness.OPENAI_KEY}")]),
        ("anthropic", [("x-api-key", harness.ANTHROPIC_KEY)]),
    ],
)
def test_key_is_in_the_headers_of_its_provider_and_in_no_repr(provider: str, headers: list[tuple[str, str]]) -> None:
    access = make_access(provider)
    requests = [
        access.client_request("POST", "/v1/x", (), b"{}"),
        access.own_request("GET", "/v1/x"),
        access.websocket_request("/v1/x", (), ()),
    ]

    for request in requests:
        assert [(name, key.reveal()) for name, key in request.key_headers] == headers
        assert headers[0][1] not in repr(request)
        assert headers[0][1] not in str(request.headers)


# Which address, and which limits.

CUSTOM = ProviderSettings("https://eu.provider.test/openai", (ProviderKey("main", Secret("k")),), ca_file="/etc/ca.pem")
STREAMS = {"connect_timeout_s": 3.0, "idle_timeout_s": 70.0}


def test_requests_go_to_the_configured_address_with_its_authorities_and_timeouts() -> None:
    access = make_access(providers={"openai": CUSTOM}, streams=STREAMS, websockets={"max_message_mb": 2})

    http = access.client_request("GET", "/v1/models?a=1", (), b"")
    socket = access.websocket_request("/v1/realtime?model=m", (), ("realtime",))

    assert (http.url, socket.url) == (
        "https://eu.provider.test/openai/v1/models?a=1",
        "https://eu.provider.test/openai/v1/realtime?model=m",
    )
    assert (http.ca_file, socket.ca_file) == ("/etc/ca.pem", "/etc/ca.pem")
    assert (http.connect_timeout_s, http.idle_timeout_s, socket.connect_timeout_s) == (3.0, 70.0, 3.0)
    assert (socket.max_message_bytes, socket.subprotocols) == (2 * 1024 * 1024, ("realtime",))


@pytest.mark.parametrize(("method", "body"), [("POST", b"{}"), ("GET", None), ("DELETE", None)])
def test_body_is_sent_with_post_only(method: str, body: bytes | None) -> None:
    request = make_access().client_request(method, "/v1/x", (("Accept", "a/b"),), b"{}")

    assert (request.method, request.body and request.body.read(10)) == (method, body)
    assert request.headers == (("Accept", "a/b"), ("Accept-Encoding", "identity"))


@pytest.mark.parametrize(("provider", "more"), [("openai", ()), ("anthropic", (("anthropic-version", "2023-06-01"),))])
@pytest.mark.parametrize(("method", "size"), [("GET", None), ("POST", 0)])
def test_own_request_has_the_headers_that_its_provider_needs(
    provider: str, more: tuple[tuple[str, str], ...], method: str, size: int | None
) -> None:
    request = make_access(provider).own_request(method, "/v1/x")

    assert request.url == f"{PROVIDER_URL}/v1/x"
    assert request.headers == (("Accept", "application/json"), ("Accept-Encoding", "identity"), *more)
    assert (request.body.size if request.body is not None else None) == size


# Which headers of the client.


@pytest.mark.parametrize(
    ("provider", "header", "passes"),
    [
        ("openai", ("Content-Type", "application/json"), True),
        ("openai", ("OpenAI-Beta", "realtime=v1"), True),
        ("openai", ("X-Stainless-OS", "Linux"), True),
        ("openai", ("OpenAI-Organization", "org-1"), False),
        ("openai", ("Authorization", "Bearer other"), False),
        ("openai", ("Cookie", "a=b"), False),
        ("openai", ("X-Trace", "1"), False),
        ("openai", ("Accept-Encoding", "gzip"), False),
        ("openai", ("anthropic-version", "2023-06-01"), False),
        ("anthropic", ("anthropic-version", "2023-06-01"), True),
        ("anthropic", ("x-api-key", "other"), False),
    ],
)
def test_headers_of_the_provider_s_list_are_forwarded(provider: str, header: tuple[str, str], passes: bool) -> None:
    forwarded = forwarded_headers([header], make_access(provider), TOKEN)

    assert list(forwarded) == ([header] if passes else [])


@pytest.mark.parametrize(
    ("name", "passes"), [("X-Trace", True), ("X-Other", False), ("Authorization", False), ("OpenAI-Project", False)]
)
def test_configured_headers_are_forwarded_too_unless_they_are_private(name: str, passes: bool) -> None:
    access = make_access(forward_headers=frozenset({"x-trace", "authorization", "openai-project"}))

    assert list(forwarded_headers([(name, "1")], access, TOKEN)) == ([(name, "1")] if passes else [])


@pytest.mark.parametrize(
    ("headers", "rejected"),
    [
        pytest.param([("OpenAI-Api-Key", TOKEN)], True, id="forwarded header"),
        pytest.param([("X-Stainless-Key", f"key={TOKEN};")], True, id="inside of a value"),
        pytest.param([("Authorization", f"Bearer {TOKEN}")], False, id="header that is not forwarded"),
    ],
)
def test_token_in_a_forwarded_header_is_rejected(headers: Headers, rejected: bool) -> None:
    if rejected:
        with pytest.raises(BadRequest, match="holds your token") as caught:
            forwarded_headers(headers, make_access(), TOKEN)
        assert TOKEN not in caught.value.message
    else:
        assert list(forwarded_headers(headers, make_access(), TOKEN)) == []


@pytest.mark.parametrize(
    ("provider", "offered", "forwarded"),
    [
        ("openai", ("realtime", "openai-beta.realtime-v1"), ("realtime", "openai-beta.realtime-v1")),
        ("openai", ("realtime", "openai-insecure-api-key.sk-1"), ("realtime",)),
        ("openai", ("openai-organization.o", "openai-project.p", "realtime"), ("realtime",)),
        ("openai", (f"custom.{TOKEN}", "realtime"), ("realtime",)),
        ("openai", ("meshagent-project-id.0c9f8a5e", "realtime"), ("realtime",)),
        ("openai", (), ()),
        ("anthropic", ("a", f"b.{TOKEN}"), ("a",)),
    ],
)
def test_subprotocols_that_carry_a_credential_or_choose_an_account_are_not_offered(
    provider: str, offered: tuple[str, ...], forwarded: tuple[str, ...]
) -> None:
    assert forwarded_subprotocols(offered, make_access(provider).provider, Secret(TOKEN)) == forwarded


@pytest.mark.parametrize(
    ("target", "rejected"),
    [
        ("/v1/models", False),
        ("/v1/models?key=other", False),
        (f"/v1/models?key={TOKEN}", True),
        (f"/v1/models/{TOKEN}", True),
        ("/v1/models?key=token%2Dof%2dthe-client", True),
    ],
)
def test_token_in_the_target_is_rejected(target: str, rejected: bool) -> None:
    if rejected:
        with pytest.raises(BadRequest, match="holds your token") as caught:
            reject_token_in_target(target, TOKEN)
        assert TOKEN not in caught.value.message
    else:
        reject_token_in_target(target, TOKEN)
