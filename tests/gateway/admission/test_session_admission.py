"""Admission of WebSocket sessions: the upgrade, each frame of the client, and the checks while the session runs."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests import harness
from tests.gateway.fakes import (
    SESSION_PROVIDER_KEY,
    Gateway,
    make_project,
    make_snapshot,
    request_head,
    seal_session_key,
)
from tests.oauth.tokens import claims_of, rsa_key, sign
from tests.providers.reading import read_frame
from tornado_proxy.auth.authenticator import Authenticator
from tornado_proxy.auth.oauth.key_set import VerificationKey
from tornado_proxy.domain.config.oauth import KeySource, OAuthIssuer
from tornado_proxy.domain.errors import (
    BadRequest,
    IdentityProviderUnavailable,
    LedgerUnavailable,
    ModelNotPriced,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    RequestError,
    ServiceError,
)
from tornado_proxy.domain.identity import Member, ModelPatterns, Project
from tornado_proxy.gateway.admission.admitted import AdmittedSession
from tornado_proxy.providers.contract import WebSocketEndpoint
from tornado_proxy.snapshot import Snapshot

REALTIME = "/openai/v1/realtime?model=gpt-realtime"
CALL = "/openai/v1/realtime?call_id=rtc_1"
RESPONSES = "/openai/v1/responses"
CREATE = {"type": "response.create"}
UPDATE = {"type": "session.update", "session": {"model": "gpt-realtime"}}
NOW = datetime.now(UTC)


@pytest.fixture
def gateway() -> Gateway:
    return Gateway(make_snapshot())


def upgrade(
    gateway: Gateway, target: str = REALTIME, *, subprotocols: tuple[str, ...] = (), **head: Any
) -> AdmittedSession:
    context = gateway.admission.authenticate_upgrade(
        gateway.snapshot, request_head(target, method="GET", **{"headers": [], **head})
    )
    return asyncio.run(gateway.admission.admit_upgrade(context, subprotocols))


# authenticate_upgrade


@pytest.mark.parametrize(
    "head",
    [
        pytest.param({}, id="Authorization"),
        pytest.param(
            {
                "token": "",
                "headers": [("Sec-WebSocket-Protocol", f"realtime, openai-insecure-api-key.{harness.mint()}")],
            },
            id="subprotocol",
        ),
    ],
)
def test_token_of_an_upgrade_is_found(gateway: Gateway, head: dict[str, Any]) -> None:
    context = gateway.admission.authenticate_upgrade(gateway.snapshot, request_head(REALTIME, method="GET", **head))

    assert isinstance(context.endpoint, WebSocketEndpoint)
    assert context.caller.participant == "ada"
    assert context.query == "model=gpt-realtime"


TOKEN = harness.mint(name="eve")


@pytest.mark.parametrize(
    ("head", "error"),
    [
        pytest.param({"target": "/openai/v1/models"}, BadRequest, id="path is no WebSocket"),
        pytest.param({"target": "/openai/v1/unknown"}, NotFound, id="unknown path"),
        pytest.param({"target": REALTIME, "token": ""}, NotAuthenticated, id="no credential"),
        pytest.param({"target": f"{REALTIME}&k={TOKEN}", "token": TOKEN}, BadRequest, id="token in the query"),
    ],
)
def test_upgrade_without_a_route_or_a_valid_credential_is_rejected(
    gateway: Gateway, head: dict[str, Any], error: type[RequestError]
) -> None:
    with pytest.raises(error):
        gateway.admission.authenticate_upgrade(gateway.snapshot, request_head(method="GET", **head))


# admit_upgrade


def test_admitted_session_is_ready_to_connect_and_has_no_intent_yet(gateway: Gateway) -> None:
    session = upgrade(gateway, subprotocols=("realtime", "openai-insecure-api-key.secret", "openai-project.p"))

    assert session.upstream.url == "http://provider.test:9/v1/realtime?model=gpt-realtime"
    assert session.upstream.subprotocols == ("realtime",)
    assert [(name, key.reveal()) for name, key in session.upstream.key_headers] == [
        ("Authorization", f"Bearer {harness.OPENAI_KEY}")
    ]
    assert [spend.model for spend in session.reader.spends] == ["gpt-realtime"]
    assert not session.billed_elsewhere
    assert gateway.ledger.begun == []


@pytest.mark.parametrize(
    ("target", "token", "error"),
    [
        pytest.param(REALTIME, harness.mint(models=["openai/gpt-4o"]), NotAllowed, id="model not granted"),
        pytest.param(REALTIME, harness.mint_for_other_project(), NotAllowed, id="model not granted to the project"),
        pytest.param("/openai/v1/realtime?model=gpt-next", None, ModelNotPriced, id="model without a price"),
        pytest.param("/openai/v1/realtime", None, BadRequest, id="neither model nor call"),
        pytest.param(CALL, harness.mint_for_other_project(), NotFound, id="call of another project"),
        pytest.param("/openai/v1/realtime?call_id=rtc_unknown", None, NotFound, id="call of unknown origin"),
    ],
)
def test_upgrade_that_cannot_be_admitted_is_rejected(
    gateway: Gateway, target: str, token: str | None, error: type[RequestError]
) -> None:
    gateway.ownership.remember("openai", "rtc_1", harness.PROJECT)

    with pytest.raises(error):
        upgrade(gateway, target, token=token)


def test_upgrade_to_a_provider_without_configuration_is_unavailable() -> None:
    with pytest.raises(ServiceError, match=r"add providers\.openai"):
        upgrade(Gateway(make_snapshot(providers={})))


def test_session_of_a_call_is_billed_by_its_sideband_while_that_lives(gateway: Gateway) -> None:
    gateway.ownership.remember("openai", "rtc_1", harness.PROJECT)

    before = upgrade(gateway, CALL).billed_elsewhere
    gateway.live_calls.add("openai", "rtc_1")
    during = upgrade(gateway, CALL).billed_elsewhere
    gateway.live_calls.discard("openai", "rtc_1")
    after = upgrade(gateway, CALL).billed_elsewhere

    assert (before, during, after) == (False, True, False)


def test_session_that_names_an_own_object_as_its_call_is_billed_itself(gateway: Gateway) -> None:
    gateway.ownership.remember("openai", "resp_1", harness.PROJECT)
    gateway.live_calls.add("openai", "rtc_1")

    assert not upgrade(gateway, f"{REALTIME}&call_id=resp_1").billed_elsewhere


def test_session_of_an_allowed_call_from_elsewhere_is_billed_itself() -> None:
    gateway = Gateway(make_snapshot(projects=[make_project(allowed_objects=frozenset({"rtc_1"}))]))

    assert not upgrade(gateway, CALL).billed_elsewhere


@pytest.mark.parametrize(
    ("target", "models"),
    [
        pytest.param("/openai/v1/realtime?call_id=", ["gpt-realtime"], id="model of the key"),
        pytest.param("/openai/v1/realtime?model=gpt-realtime-mini", ["gpt-realtime-mini"], id="model of the query"),
    ],
)
def test_session_key_states_the_model_that_the_query_does_not(gateway: Gateway, target: str, models: list[str]) -> None:
    session = upgrade(gateway, target, token=seal_session_key(gateway.snapshot))

    assert [spend.model for spend in session.reader.spends] == models
    assert session.access.key.reveal() == SESSION_PROVIDER_KEY
    # The provider knows the model from its own key: the target is the client's.
    assert session.upstream.url.endswith(target.removeprefix("/openai"))


# admit_frame


def admit_frame(gateway: Gateway, session: AdmittedSession, event: dict[str, Any]) -> Any:
    frame = read_frame(session.context.endpoint, session.reader, json.dumps(event))
    return asyncio.run(gateway.admission.admit_frame(session, frame, "req_session"))


def test_frame_that_requests_work_has_its_intent_in_the_ledger(gateway: Gateway) -> None:
    session = upgrade(gateway)

    intent = admit_frame(gateway, session, CREATE)

    assert gateway.ledger.begun == [intent]
    assert (intent.session, intent.model_requested, intent.endpoint) == ("req_session", "gpt-realtime", "/v1/realtime")
    assert intent.request_id != "req_session"
    assert intent.started_at > session.context.request.received_at


def test_frame_that_costs_nothing_has_no_intent(gateway: Gateway) -> None:
    assert admit_frame(gateway, upgrade(gateway), UPDATE) is None

    assert gateway.ledger.begun == []


def test_frame_of_a_session_that_is_billed_elsewhere_has_no_intent(gateway: Gateway) -> None:
    gateway.ownership.remember("openai", "rtc_1", harness.PROJECT)
    gateway.live_calls.add("openai", "rtc_1")
    session = upgrade(gateway, CALL)
    session.reader.feed_server_frame(json.dumps({"type": "session.created", "session": {"model": "gpt-realtime"}}))

    assert admit_frame(gateway, session, CREATE) is None

    assert gateway.ledger.begun == []


@pytest.mark.parametrize(
    ("target", "frame", "error", "message"),
    [
        pytest.param(CALL, CREATE, ModelNotPriced, "not known yet", id="session whose model is not known"),
        pytest.param(
            REALTIME,
            {"type": "session.update", "session": {"model": "gpt-next"}},
            ModelNotPriced,
            "gpt-next",
            id="change to a model without a price",
        ),
        pytest.param(
            REALTIME,
            {"type": "session.update", "session": {"model": "gpt-realtime-mini"}},
            NotAllowed,
            "does not grant",
            id="change to a model that is not granted",
        ),
        pytest.param(
            RESPONSES,
            {**CREATE, "model": "gpt-4o-mini", "input": "hi", "previous_response_id": "resp_of_another"},
            NotFound,
            "resp_of_another was not found",
            id="object of another project",
        ),
    ],
)
def test_frame_that_cannot_be_admitted_leaves_no_intent(
    gateway: Gateway, target: str, frame: dict[str, Any], error: type[RequestError], message: str
) -> None:
    gateway.ownership.remember("openai", "rtc_1", harness.PROJECT)
    gateway.ownership.remember("openai", "resp_of_another", harness.OTHER_PROJECT)
    session = upgrade(
        gateway, target, token=harness.mint(models=["openai/gpt-realtime", "openai/gpt-next", "openai/gpt-4o-mini"])
    )

    with pytest.raises(error, match=message):
        admit_frame(gateway, session, frame)

    assert gateway.ledger.begun == []


def test_frame_is_rejected_while_the_ledger_cannot_be_written(gateway: Gateway) -> None:
    session = upgrade(gateway)
    gateway.ledger.fail("the disk is full")

    with pytest.raises(LedgerUnavailable, match="the disk is full"):
        admit_frame(gateway, session, CREATE)


# recheck


def restricted(*patterns: str) -> Project:
    return make_project(models=ModelPatterns(patterns))


@pytest.mark.parametrize(
    ("current", "error", "message"),
    [
        pytest.param(make_snapshot, None, "", id="unchanged"),
        pytest.param(lambda: make_snapshot(projects=[restricted("openai/*")]), None, "", id="still granted"),
        pytest.param(lambda: make_snapshot(projects=[]), NotAuthenticated, "key", id="project removed"),
        pytest.param(
            lambda: make_snapshot(projects=[make_project(api_keys=())]), NotAuthenticated, "key", id="key revoked"
        ),
        pytest.param(
            lambda: make_snapshot(projects=[restricted("openai/gpt-4o")]), NotAllowed, "may not use", id="model revoked"
        ),
    ],
)
@pytest.mark.parametrize("session_key", [False, True], ids=["participant token", "session key"])
def test_running_session_is_checked_against_the_current_configuration(
    gateway: Gateway, current: Any, error: type[RequestError] | None, message: str, session_key: bool
) -> None:
    token = seal_session_key(gateway.snapshot) if session_key else None
    session = upgrade(gateway, token=token)
    now: Snapshot = current()

    if error is None:
        asyncio.run(gateway.admission.recheck(session.context, session.reader.spends, now))
    else:
        with pytest.raises(error, match=message):
            asyncio.run(gateway.admission.recheck(session.context, session.reader.spends, now))


def test_running_session_ends_with_the_expiry_of_its_token(gateway: Gateway) -> None:
    arrived_at = NOW - timedelta(hours=1)
    token = harness.mint(exp=NOW - timedelta(minutes=1))
    session = upgrade(gateway, token=token, received_at=arrived_at)

    with pytest.raises(NotAuthenticated, match="expired"):
        asyncio.run(gateway.admission.recheck(session.context, session.reader.spends, gateway.snapshot))


def test_running_session_outlives_the_expiry_of_its_session_key(gateway: Gateway) -> None:
    arrived_at = NOW - timedelta(hours=1)
    key = seal_session_key(gateway.snapshot, valid_for=timedelta(minutes=-30))
    session = upgrade(gateway, token=key, received_at=arrived_at)

    asyncio.run(gateway.admission.recheck(session.context, session.reader.spends, gateway.snapshot))


def test_model_that_the_session_has_changed_to_must_be_granted_too(gateway: Gateway) -> None:
    session = upgrade(gateway, token=harness.mint(models=["openai/gpt-realtime"]))
    session.reader.feed_server_frame(json.dumps({"type": "session.updated", "session": {"model": "gpt-realtime-mini"}}))

    with pytest.raises(NotAllowed, match="does not grant openai/gpt-realtime-mini"):
        asyncio.run(gateway.admission.recheck(session.context, session.reader.spends, gateway.snapshot))


class UnreachableIssuer:
    """An issuer whose key is known until a test makes it unreachable."""

    issuer = OAuthIssuer(KeySource("https://id.example.com"), "llm-proxy", frozenset({"cli"}))
    reachable = True

    def find_key(self, key_id: str, algorithm: str) -> VerificationKey:
        if not self.reachable:
            raise IdentityProviderUnavailable(self.issuer.name, 1)
        return VerificationKey("RS256", rsa_key().private.public_key())

    def introspect(self, token: str, now: datetime) -> Any:
        raise NotImplementedError


MEMBER = Member("user-7", frozenset({"can_use_llm_proxy"}))


@pytest.mark.parametrize(
    ("members", "expires_in_s", "error"),
    [
        pytest.param((MEMBER,), 3600, None, id="still a member"),
        pytest.param((), 3600, NotAllowed, id="removed"),
        pytest.param((MEMBER,), -60, NotAuthenticated, id="expired"),
    ],
)
def test_session_of_a_user_is_checked_also_while_the_issuer_is_unreachable(
    gateway: Gateway, members: tuple[Member, ...], expires_in_s: int, error: type[RequestError] | None
) -> None:
    issuer = UnreachableIssuer()

    def snapshot_with(*present: Member) -> Snapshot:
        snapshot = make_snapshot(projects=[make_project(members=present)])
        return replace(snapshot, authenticator=Authenticator(list(snapshot.projects.values()), [issuer]))

    token = sign(rsa_key(), claims_of(issuer.issuer.name, exp=time.time() + expires_in_s))
    gateway.snapshot = snapshot_with(MEMBER)
    session = upgrade(
        gateway,
        token=token,
        received_at=NOW - timedelta(hours=1),
        headers=[("Meshagent-Project-Id", harness.PROJECT)],
    )
    issuer.reachable = False

    recheck = gateway.admission.recheck(session.context, session.reader.spends, snapshot_with(*members))
    if error is None:
        asyncio.run(recheck)
    else:
        with pytest.raises(error):
            asyncio.run(recheck)
