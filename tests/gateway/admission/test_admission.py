"""Every rejection and every result of admission, with real routes, prices and tokens and an in-memory ledger."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from msgspec import structs
from msgspec.structs import replace

from tests import harness
from tests.gateway.fakes import (
    FakeProvider,
    Gateway,
    add_endpoints,
    make_project,
    make_snapshot,
    own_keys,
    request_head,
    seal_session_key,
)
from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.domain.errors import (
    BadRequest,
    BodyTooLarge,
    Draining,
    InvalidBody,
    LedgerUnavailable,
    MethodNotAllowed,
    ModelNotPriced,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    Overloaded,
    RequestError,
    ServiceError,
    UpgradeRequired,
    UpstreamTimeout,
    UsagePending,
)
from tornado_proxy.domain.identity import Caller, ModelPatterns
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.usage import Basis, Meter
from tornado_proxy.gateway.admission.admitted import AdmittedRequest
from tornado_proxy.gateway.admission.model_visibility import usable_model
from tornado_proxy.gateway.bodies.reading import check_body_length
from tornado_proxy.gateway.context import request_intent, start_request
from tornado_proxy.http_server.incoming_request import IncomingRequest
from tornado_proxy.providers.contract import HttpEndpoint, ParsedRequest, RequestView
from tornado_proxy.providers.shared.free_reader import FreeReader
from tornado_proxy.snapshot import Snapshot
from tornado_proxy.upstream.credentials import caller_access

CHAT = "/openai/v1/chat/completions"
CALLS = "/openai/v1/realtime/calls"
BATCHES = "/anthropic/v1/messages/batches"
NOW = datetime.now(UTC)


def make_chat(model: str = "gpt-4o-mini", **members: Any) -> bytes:
    return json.dumps({"model": model, "messages": [], **members}).encode()


def make_batch(model: str) -> bytes:
    params = {"model": model, "max_tokens": 1, "messages": []}
    return json.dumps({"requests": [{"custom_id": "a", "params": params}]}).encode()


def make_response(**members: Any) -> bytes:
    return json.dumps({"model": "gpt-4o-mini", "input": "hi", **members}).encode()


@pytest.fixture
def gateway() -> Gateway:
    return Gateway(make_snapshot())


def admit(gateway: Gateway, head: IncomingRequest, body: bytes = b"", request_id: str = "req_1") -> AdmittedRequest:
    context = gateway.admission.authenticate(gateway.snapshot, head)
    return asyncio.run(gateway.admit(context, body, request_id))


# authenticate


def test_context_of_an_authenticated_request_has_its_route_and_its_caller(gateway: Gateway) -> None:
    token = harness.mint(name="ada", models=["openai/*"])

    context = gateway.admission.authenticate(gateway.snapshot, request_head(f"{CHAT}?a=1", token=token))

    assert (context.endpoint.method, context.endpoint.path) == ("POST", "/v1/chat/completions")
    assert (context.provider.name, context.upstream_target) == ("openai", "/v1/chat/completions?a=1")
    assert (context.caller.participant, context.caller.room, context.caller.role) == ("ada", "lab", "agent")
    assert context.caller.granted == ModelPatterns(("openai/*",))
    assert context.project.id == harness.PROJECT
    assert context.tariff is gateway.snapshot.tariffs["openai"]
    assert context.token.reveal() == token


EXPIRED = harness.mint(exp=NOW - timedelta(seconds=1))
FORGED = harness.mint(secret="another-secret-that-signs-nothing-here-0123")
WITHOUT_LLM = harness.mint(api={"storage": {}})
TOKEN = harness.mint(name="eve")


@pytest.mark.parametrize(
    ("head", "error", "message"),
    [
        pytest.param({"target": "/openai/v1/files"}, NotFound, "is not served", id="unknown path"),
        pytest.param({"target": CHAT, "method": "GET"}, MethodNotAllowed, "takes POST", id="wrong method"),
        pytest.param({"target": "/v1/realtime", "method": "GET"}, UpgradeRequired, "WebSocket", id="WebSocket path"),
        pytest.param({"target": "/openai/v1/chat%2Fcompletions"}, BadRequest, "not allowed", id="encoded path"),
        pytest.param({"token": ""}, NotAuthenticated, "no credential", id="no credential"),
        pytest.param({"token": FORGED}, NotAuthenticated, "signature", id="forged token"),
        pytest.param({"token": EXPIRED}, NotAuthenticated, "expired", id="expired token"),
        pytest.param({"token": WITHOUT_LLM}, NotAllowed, "llm", id="token without the llm grant"),
        pytest.param(
            {"target": "/anthropic/v1/messages", "headers": [("x-api-key", TOKEN)]},
            NotAuthenticated,
            "two different",
            id="two credentials",
        ),
        pytest.param({"target": f"{CHAT}?key={TOKEN}", "token": TOKEN}, BadRequest, "your token", id="token in query"),
        pytest.param(
            {"target": f"{CHAT}?key={quote(TOKEN).replace('.', '%2E')}", "token": TOKEN},
            BadRequest,
            "your token",
            id="encoded token in query",
        ),
    ],
)
def test_request_without_a_route_or_a_valid_credential_is_rejected(
    gateway: Gateway, head: dict[str, Any], error: type[RequestError], message: str
) -> None:
    with pytest.raises(error, match=message):
        gateway.admission.authenticate(gateway.snapshot, request_head(**head))


def test_session_key_is_accepted_by_realtime_calls_only(gateway: Gateway) -> None:
    key = seal_session_key(gateway.snapshot)

    context = gateway.admission.authenticate(gateway.snapshot, request_head(CALLS, token=key))
    with pytest.raises(NotAuthenticated, match="valid for realtime sessions only"):
        gateway.admission.authenticate(gateway.snapshot, request_head(CHAT, token=key))

    assert context.caller.session is not None


# check_capacity


class InFlight:
    """A request in flight."""

    def drain(self) -> None:
        pass


def test_request_above_the_limit_of_streams_is_rejected() -> None:
    gateway = Gateway(make_snapshot(limits={"max_streams": 1}))
    context = gateway.admission.authenticate(gateway.snapshot, request_head())

    gateway.admission.check_capacity(context)
    gateway.capacity.add(InFlight(), harness.PROJECT)  # type: ignore[arg-type]

    with pytest.raises(Overloaded, match="1 requests in flight"):
        gateway.admission.check_capacity(context)


def test_request_during_a_shutdown_is_rejected(gateway: Gateway) -> None:
    context = gateway.admission.authenticate(gateway.snapshot, request_head())

    gateway.capacity.begin_drain()

    with pytest.raises(Draining):
        gateway.admission.check_capacity(context)


# admit_request


def test_admitted_request_is_ready_to_send_and_its_intent_is_in_the_ledger(gateway: Gateway) -> None:
    head = request_head(headers=[("Content-Type", "application/json"), ("X-Meshagent-Annotation-Task", "t1")])

    admitted = admit(gateway, head, make_chat())

    assert gateway.ledger.begun == [admitted.intent]
    intent = admitted.intent
    assert (intent.request_id, intent.provider, intent.method) == ("req_1", "openai", "POST")
    assert (intent.endpoint, intent.model_requested) == ("/v1/chat/completions", "gpt-4o-mini")
    assert (intent.started_at, intent.session, intent.annotations) == (head.received_at, None, (("task", "t1"),))
    assert intent.caller == admitted.context.caller
    assert (admitted.upstream.method, admitted.upstream.url) == (
        "POST",
        "http://provider.test:9/v1/chat/completions",
    )
    assert admitted.upstream.body is not None
    assert admitted.upstream.body.read(1000) == make_chat()
    assert admitted.visible_objects is None


def test_intent_names_the_path_without_its_query(gateway: Gateway) -> None:
    admitted = admit(gateway, request_head(f"{CHAT}?api-version=1"), make_chat())

    assert admitted.intent.endpoint == "/v1/chat/completions"
    assert admitted.upstream.url.endswith("/v1/chat/completions?api-version=1")


def test_free_request_without_a_model_is_admitted_and_recorded(gateway: Gateway) -> None:
    admitted = admit(gateway, request_head("/openai/v1/models", method="GET"))

    assert gateway.ledger.begun == [admitted.intent]
    assert (admitted.intent.model_requested, admitted.upstream.body) == (None, None)


def test_compressed_body_is_read_and_sent_decoded(gateway: Gateway) -> None:
    head = request_head(headers=[("Content-Type", "application/json"), ("Content-Encoding", "gzip")])

    admitted = admit(gateway, head, gzip.compress(make_chat(stream=True)))

    assert admitted.facts.model == "gpt-4o-mini"
    assert admitted.upstream.body is not None
    assert json.loads(admitted.upstream.body.read(10_000))["stream"] is True
    assert "content-encoding" not in {name.lower() for name, _ in admitted.upstream.headers}


def test_compressed_body_of_a_path_that_reads_none_is_sent_decoded(gateway: Gateway) -> None:
    gateway.ownership.remember("anthropic", "batch_1", harness.PROJECT)
    head = request_head(f"{BATCHES}/batch_1/cancel", headers=[("Content-Encoding", "gzip")])

    admitted = admit(gateway, head, gzip.compress(b"{}"))

    assert admitted.upstream.body is not None
    assert admitted.upstream.body.read(100) == b"{}"


LIMITED = harness.mint(models=["openai/gpt-4o"])
BAD_ANNOTATION = [("X-Meshagent-Annotation-Task", "x" * 1000)]


@pytest.mark.parametrize(
    ("head", "body", "error", "message"),
    [
        pytest.param({"token": LIMITED}, make_chat(), NotAllowed, "your token does not grant", id="not granted"),
        pytest.param(
            {"token": harness.mint_for_other_project()},
            make_chat("gpt-4o"),
            NotAllowed,
            "project other may not use",
            id="not granted to the project",
        ),
        pytest.param({}, make_chat("gpt-next"), ModelNotPriced, "gpt-next", id="model without a price"),
        pytest.param(
            {},
            make_chat("claude-haiku-4-5"),
            ModelNotPriced,
            "^claude-haiku-4-5 is an Anthropic model; its API is served under /anthropic$",
            id="model of the other provider",
        ),
        pytest.param(
            {"target": BATCHES},
            make_batch("gpt-4o-mini"),
            ModelNotPriced,
            "^gpt-4o-mini is an OpenAI model; its API is served under /openai$",
            id="model of the other provider, in a batch",
        ),
        pytest.param({}, make_chat(service_tier="dear"), ModelNotPriced, "dear", id="service tier without a price"),
        pytest.param({}, b"{}", InvalidBody, "model", id="body without a model"),
        pytest.param(
            {"headers": [("Content-Encoding", "gzip")]}, make_chat(), InvalidBody, "not valid gzip", id="no gzip"
        ),
        pytest.param(
            {"headers": [("Content-Encoding", "br")]}, make_chat(), BadRequest, "not supported", id="unknown coding"
        ),
        pytest.param({"headers": BAD_ANNOTATION}, make_chat(), BadRequest, "too long", id="annotation too long"),
        pytest.param(
            {"target": "/openai/v1/responses"},
            make_response(previous_response_id="resp_of_another"),
            NotFound,
            "resp_of_another was not found",
            id="body refers to an object of another project",
        ),
        pytest.param(
            {"target": "/openai/v1/responses/resp_of_another", "method": "GET"},
            b"",
            NotFound,
            "resp_of_another was not found",
            id="path names an object of another project",
        ),
        pytest.param(
            {"target": "/openai/v1/models/gpt-next", "method": "GET"},
            b"",
            NotFound,
            "does not exist",
            id="path names a model without a price",
        ),
    ],
)
def test_request_that_cannot_be_admitted_leaves_no_intent(
    gateway: Gateway, head: dict[str, Any], body: bytes, error: type[RequestError], message: str
) -> None:
    gateway.ownership.remember("openai", "resp_of_another", harness.OTHER_PROJECT)

    with pytest.raises(error, match=message):
        admit(gateway, request_head(**head), body)

    assert gateway.ledger.begun == []


def test_rejection_after_parsing_names_the_model_for_the_log(gateway: Gateway) -> None:
    with pytest.raises(ModelNotPriced) as unpriced:
        admit(gateway, request_head(), make_chat("gpt-next"))
    with pytest.raises(NotAllowed) as not_granted:
        admit(gateway, request_head(token=LIMITED), make_chat("gpt-5.4"))

    assert (unpriced.value.model, not_granted.value.model) == ("gpt-next", "gpt-5.4")


def test_identity_content_encoding_is_accepted(gateway: Gateway) -> None:
    admit(gateway, request_head(headers=[("Content-Encoding", "Identity")]), make_chat())

    assert len(gateway.ledger.begun) == 1


async def store_pending(gateway: Gateway, object_id: str) -> None:
    intent = make_intent("req_0", provider="openai", endpoint="/v1/responses", caller=Caller(harness.PROJECT))
    await gateway.ledger.finish(make_record(intent, basis=Basis.PENDING, object_id=object_id))


@pytest.mark.parametrize(
    ("state", "settled"),
    [
        pytest.param({"status": "completed", "usage": {"input_tokens": 1000, "output_tokens": 0}}, True, id="finished"),
        pytest.param(None, False, id="usage cannot be fetched"),
    ],
)
def test_object_is_deleted_only_after_its_usage_is_settled(state: dict[str, Any] | None, settled: bool) -> None:
    response = UpstreamTimeout("silent") if state is None else (200, json.dumps({"id": "resp_1", **state}).encode())
    gateway = Gateway(make_snapshot(), provider=FakeProvider({"GET /v1/responses/resp_1": [response]}))
    asyncio.run(store_pending(gateway, "resp_1"))
    gateway.ownership.remember("openai", "resp_1", harness.PROJECT)
    head = request_head("/openai/v1/responses/resp_1", method="DELETE")

    if settled:
        admit(gateway, head)
    else:
        with pytest.raises(UsagePending):
            admit(gateway, head)

    assert [(entry.request_id, entry.basis) for entry in gateway.ledger.settled] == [
        ("req_0", Basis.REPORTED)
    ] * settled
    assert len(gateway.ledger.begun) == settled


def test_own_object_of_the_project_is_accepted(gateway: Gateway) -> None:
    gateway.ownership.remember("openai", "resp_1", harness.PROJECT)

    admit(gateway, request_head("/openai/v1/responses"), make_response(previous_response_id="resp_1"))
    admit(gateway, request_head("/openai/v1/responses/resp_1", method="GET"), request_id="req_2")

    assert [intent.request_id for intent in gateway.ledger.begun] == ["req_1", "req_2"]


@pytest.mark.parametrize(("models_list", "rejected"), [("filtered", True), ("provider", False)])
def test_model_in_the_path_is_checked_unless_the_provider_s_own_list_is_shown(models_list: str, rejected: bool) -> None:
    gateway = Gateway(make_snapshot(models_list=models_list))
    head = request_head("/openai/v1/models/gpt-next", method="GET")

    if rejected:
        with pytest.raises(NotFound) as caught:
            admit(gateway, head)
        assert caught.value.code == "model_not_found"
    else:
        assert admit(gateway, head).upstream.url.endswith("/v1/models/gpt-next")


def test_provider_without_configuration_is_unavailable_and_nothing_is_recorded() -> None:
    gateway = Gateway(make_snapshot(providers={}))

    with pytest.raises(ServiceError, match=r"add providers\.openai") as caught:
        admit(gateway, request_head(), make_chat())

    assert (caught.value.status, caught.value.code) == (503, "provider_not_configured")
    assert gateway.ledger.begun == []


def test_request_is_rejected_while_the_ledger_cannot_be_written(gateway: Gateway) -> None:
    gateway.ledger.fail("the disk is full")

    with pytest.raises(LedgerUnavailable, match="the disk is full") as caught:
        admit(gateway, request_head(), make_chat())

    assert caught.value.status == 503
    assert gateway.ledger.store.intents == {}


@pytest.mark.parametrize(
    ("project", "visible"),
    [
        pytest.param(make_project(), frozenset({"batch_1"}), id="own objects"),
        pytest.param(
            make_project(allowed_objects=frozenset({"batch_9"})), frozenset({"batch_1", "batch_9"}), id="and allowed"
        ),
        pytest.param(make_project(providers=own_keys(anthropic="sk-own")), None, id="own key: all of its list"),
    ],
)
def test_list_shows_the_objects_of_the_project(project: Any, visible: frozenset[str] | None) -> None:
    gateway = Gateway(make_snapshot(projects=[project]))

    async def own_batches(project_id: str, provider: str, endpoint: str) -> frozenset[str]:
        assert (project_id, provider, endpoint) == (harness.PROJECT, "anthropic", "/v1/messages/batches")
        return frozenset({"batch_1"})

    gateway.ledger.owned_by = own_batches  # type: ignore[method-assign]

    assert admit(gateway, request_head(BATCHES, method="GET")).visible_objects == visible


# A charged endpoint must name a spend with a price: its own kind of test, as every new endpoint depends on it.


def parse_nothing(request: RequestView) -> ParsedRequest:
    return ParsedRequest(RequestFacts(body_bytes=len(request.body)), request.body)


def read_free(facts: RequestFacts, head: object) -> FreeReader:
    return FreeReader()


@pytest.mark.parametrize("parse", [parse_nothing, None], ids=["parse names no spend", "no parse"])
def test_charged_endpoint_whose_request_names_no_spend_is_rejected_before_anything_is_sent(
    parse: Callable[[RequestView], ParsedRequest] | None,
) -> None:
    endpoint = HttpEndpoint("POST", "/v1/new", parse=parse, reader=read_free)
    gateway = Gateway(add_endpoints(make_snapshot(), endpoint))

    with pytest.raises(ModelNotPriced, match="names no model"):
        admit(gateway, request_head("/openai/v1/new"), b'{"prompt": "draw a cat"}')

    assert gateway.ledger.begun == []


def test_free_endpoint_may_name_no_spend() -> None:
    gateway = Gateway(add_endpoints(make_snapshot(), HttpEndpoint("POST", "/v1/new", parse=parse_nothing)))

    admit(gateway, request_head("/openai/v1/new"), b"{}")

    assert len(gateway.ledger.begun) == 1


def test_spends_that_are_measured_after_parsing_are_admitted_too() -> None:
    def measure(parsed: ParsedRequest, request: RequestView) -> ParsedRequest:
        spends = (Spend("gpt-next", frozenset({Meter.INPUT})),)
        return structs.replace(parsed, facts=replace(parsed.facts, spends=spends))

    endpoint = HttpEndpoint("POST", "/v1/new", parse=parse_nothing, measure=measure, reader=read_free)
    gateway = Gateway(add_endpoints(make_snapshot(), endpoint))

    with pytest.raises(ModelNotPriced, match="gpt-next"):
        admit(gateway, request_head("/openai/v1/new"), b"{}")


@pytest.mark.parametrize(("priced_as", "has_price"), [("/v1/chat/completions", True), ("", False)])
def test_endpoint_is_priced_as_another_one_if_it_says_so(priced_as: str, has_price: bool) -> None:
    def parse(request: RequestView) -> ParsedRequest:
        spends = (Spend("gpt-4o-mini", frozenset({Meter.INPUT, Meter.OUTPUT})),)
        return ParsedRequest(RequestFacts(spends=spends), request.body)

    endpoint = HttpEndpoint("POST", "/v1/new", parse=parse, reader=read_free, priced_as=priced_as)
    gateway = Gateway(add_endpoints(make_snapshot(), endpoint))

    if has_price:
        admit(gateway, request_head("/openai/v1/new"), b"{}")
    else:
        with pytest.raises(ModelNotPriced):
            admit(gateway, request_head("/openai/v1/new"), b"{}")


def test_realtime_call_needs_a_session_in_its_body_or_in_its_key(gateway: Gateway) -> None:
    sdp = [("Content-Type", "application/sdp")]
    key = seal_session_key(gateway.snapshot)

    with pytest.raises(BadRequest, match="names no session") as caught:
        admit(gateway, request_head(CALLS, headers=sdp), b"v=0")
    admitted = admit(gateway, request_head(CALLS, token=key, headers=sdp), b"v=0")

    assert caught.value.param == "session"
    assert gateway.ledger.begun == [admitted.intent]


# Helpers of the gateway that admission exports.


def test_body_up_to_the_limit_is_accepted(gateway: Gateway) -> None:
    context = gateway.admission.authenticate(make_snapshot(limits={"max_body_mb": 1}), request_head())

    check_body_length(context, 1024 * 1024)
    with pytest.raises(BodyTooLarge, match="larger than 1 MiB"):
        check_body_length(context, 1024 * 1024 + 1)


def test_batch_may_be_larger_than_other_bodies(gateway: Gateway) -> None:
    batch, chat = (gateway.admission.authenticate(make_snapshot(), request_head(target)) for target in (BATCHES, CHAT))

    check_body_length(batch, 256_000_000)  # the limit of Anthropic
    with pytest.raises(BodyTooLarge, match=r"larger than 256 MiB.*limits\.max_batch_mb"):
        check_body_length(batch, 256 * 1024 * 1024 + 1)
    with pytest.raises(BodyTooLarge, match=r"larger than 64 MiB.*limits\.max_body_mb"):
        check_body_length(chat, 256_000_000)


@pytest.mark.parametrize(
    ("snapshot", "token", "model", "usable"),
    [
        pytest.param(make_snapshot, None, "gpt-4o-mini", True, id="priced and granted"),
        pytest.param(make_snapshot, None, "gpt-next", False, id="without a price"),
        pytest.param(make_snapshot, LIMITED, "gpt-4o-mini", False, id="not granted by the token"),
        pytest.param(make_snapshot, harness.mint_for_other_project(), "gpt-4o", False, id="not granted to the project"),
    ],
)
def test_usable_model_has_a_price_and_is_granted(
    gateway: Gateway, snapshot: Callable[[], Snapshot], token: str | None, model: str, usable: bool
) -> None:
    context = gateway.admission.authenticate(snapshot(), request_head(token=token))

    assert usable_model(context, model) is usable


FINE_TUNED = "ft:gpt-4o-mini-2024-07-18:acme::abc123"


@pytest.mark.parametrize(
    ("project", "token", "visible"),
    [
        pytest.param({}, None, False, id="not granted"),
        pytest.param({"models": ModelPatterns(("openai/*",))}, None, False, id="granted with all others"),
        pytest.param({"models": ModelPatterns(("openai/ft:*:acme:*",))}, None, True, id="granted to the organisation"),
        pytest.param({"models": ModelPatterns((f"openai/{FINE_TUNED}",))}, None, True, id="granted by its name"),
        pytest.param({"models": ModelPatterns(("openai/ft:*:other:*",))}, None, False, id="another organisation's"),
        pytest.param({"allowed_objects": frozenset({FINE_TUNED})}, None, True, id="an allowed object"),
        pytest.param({"providers": own_keys(openai="sk-own-key-123")}, None, True, id="an account of its own"),
        pytest.param({}, harness.mint(models=["openai/ft:*"]), False, id="granted by a token that the project signed"),
    ],
)
def test_fine_tuned_model_of_the_account_is_shown_to_its_project_alone(
    project: dict[str, Any], token: str | None, visible: bool
) -> None:
    gateway = Gateway(make_snapshot(projects=[make_project(**project)]))
    context = gateway.admission.authenticate(gateway.snapshot, request_head(token=token))

    assert usable_model(context, FINE_TUNED) is visible


def test_intent_of_a_session_s_request_names_the_session(gateway: Gateway) -> None:
    context = gateway.admission.authenticate(gateway.snapshot, request_head())

    access = caller_access(context.snapshot, context.provider, context.caller)

    facts = RequestFacts(model="gpt-4o-mini")
    intent = request_intent(context, access, facts, start_request(context, facts, "req_2", NOW, session="req_1"))

    assert (intent.request_id, intent.session, intent.started_at) == ("req_2", "req_1", NOW)


class RecordingTariff:
    """A tariff that has every price, and keeps each question for one."""

    def __init__(self) -> None:
        self.admitted: list[tuple[str, str, datetime]] = []

    def admit(self, endpoint: str, spend: Spend, at: datetime) -> None:
        self.admitted.append((endpoint, spend.model, at))


def test_prices_are_those_of_the_time_of_arrival(gateway: Gateway) -> None:
    tariff = RecordingTariff()
    arrived_at = NOW - timedelta(minutes=5)
    authenticated = gateway.admission.authenticate(gateway.snapshot, request_head(received_at=arrived_at))
    context = structs.replace(authenticated, tariff=tariff)  # type: ignore[arg-type]

    asyncio.run(gateway.admit(context, make_chat(), "req_1"))

    assert tariff.admitted == [("/v1/chat/completions", "gpt-4o-mini", arrived_at)]
