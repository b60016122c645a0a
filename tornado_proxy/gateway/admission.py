"""Everything that must hold before a byte goes to a provider, in two steps.

    head   route, credential, room for one more call     (before the body is read)
    body   fields, grants, prices, a provider key        (when the body is there)

Each gives values or raises a CallerError or ServiceError; none does I/O.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic
from urllib.parse import unquote_plus

from tornado_proxy.auth.credentials import find_token
from tornado_proxy.auth.permissions import allows, require_model
from tornado_proxy.config.settings import ProviderSettings
from tornado_proxy.domain.errors import BadRequest, NotFound, RequestError, ServiceError
from tornado_proxy.domain.identity import Caller, Secret
from tornado_proxy.domain.record import RequestIntent
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.observability import access_log
from tornado_proxy.pricing.book.tariff import Tariff
from tornado_proxy.providers.contract import Endpoint, HttpEndpoint, ParsedRequest, RequestView
from tornado_proxy.providers.route_table import EndpointT, Match
from tornado_proxy.snapshot import Snapshot
from tornado_proxy.upstream.http.request import Payload, UpstreamRequest
from tornado_proxy.wire.annotations import read_annotations
from tornado_proxy.wire.headers import filter_request_headers

_MODEL = "/v1/models/{id}"

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class RequestContext(Generic[EndpointT]):
    """A request whose head is in order.  `token` is the credential it came with."""

    snapshot: Snapshot
    match: Match[EndpointT]
    caller: Caller
    token: Secret
    headers: Headers
    started_at: datetime

    @property
    def priced_as(self) -> str:
        """The registry's endpoint whose prices hold."""
        return self.match.endpoint.priced_as or self.match.endpoint.path


@dataclass(frozen=True, slots=True)
class AdmittedRequest:
    """A request that may be sent."""

    entry: RequestContext[HttpEndpoint]
    facts: RequestFacts
    intent: RequestIntent
    upstream: UpstreamRequest
    key: Secret
    tariff: Tariff


def log_refusal(request_id: str, error: RequestError, context: RequestContext[Endpoint] | None) -> None:
    """Log and count a refused request; `context` is None if its credential was not accepted."""
    if context is None:
        access_log.log_rejection(request_id, error)
        return
    provider, endpoint = context.match.provider.name, context.match.endpoint.path
    access_log.log_rejection(request_id, error, caller=context.caller, provider=provider, endpoint=endpoint)


def new_request_id() -> str:
    """A fresh id, which answers carry as `Llm-Proxy-Request-Id`: 128 random bits."""
    return next(_ids)


def _draw_ids() -> Iterator[str]:
    """Without an end; drawn many at a time, because the system call takes longer than all else of an id."""
    while True:
        drawn = os.urandom(16 * 256).hex()
        yield from (f"req_{drawn[at : at + 32]}" for at in range(0, len(drawn), 32))


_ids = _draw_ids()


def admit_head(
    snapshot: Snapshot, method: str, target: str, headers: Headers, started_at: datetime
) -> RequestContext[HttpEndpoint]:
    """Find the route and the caller.  `target` is the raw request target.

    Raises:
        CallerError: no such route, or no valid credential.
    """
    match = snapshot.routes.match_http(method, target)
    token = find_token(headers, match.provider.credential_headers)
    caller = snapshot.authenticator.authenticate(token, started_at, session_keys=match.endpoint.session_keys)
    refuse_token_in_target(target, token)
    return RequestContext(snapshot, match, caller, Secret(token), headers, started_at)


async def parse_body(entry: RequestContext[HttpEndpoint], body: bytes) -> ParsedRequest:
    """The facts of the body.  What takes long to find (the length of uploaded audio) is found in a thread.

    Raises:
        CallerError: the body cannot be read.
    """
    parsed = _parse(entry, body)
    measure = entry.match.endpoint.measure
    return parsed if measure is None else await asyncio.to_thread(measure, parsed, _view(entry, body))


def admit_body(entry: RequestContext[HttpEndpoint], parsed: ParsedRequest, request_id: str) -> AdmittedRequest:
    """Check what the body asks for, and make what is sent.

    Raises:
        CallerError: it asks for what has no price or is not granted.
        ServiceError: this server has no key for the provider.
    """
    snapshot, provider = entry.snapshot, entry.match.provider
    _check_model_in_path(entry)
    check_spends(entry, parsed.facts.spends, entry.started_at)
    _check_session(entry, parsed.facts)
    settings, key = provider_access(entry)
    upstream = UpstreamRequest(
        method=entry.match.endpoint.method,
        url=settings.base_url + entry.match.upstream_target,
        # Usage can be read from plain bytes only; the provider's own compression of an answer would hide it.
        headers=(*passed_headers(entry), ("Accept-Encoding", "identity")),
        key_headers=tuple(provider.key_headers(key).items()),
        body=Payload(parsed.body) if entry.match.endpoint.method == "POST" else None,
        connect_timeout_s=snapshot.settings.streams.connect_timeout_s,
        idle_timeout_s=snapshot.settings.streams.idle_timeout_s,
        ca_file=settings.ca_file,
    )
    return AdmittedRequest(
        entry, parsed.facts, _intent(entry, parsed.facts, request_id), upstream, key, snapshot.tariffs[provider.name]
    )


def _check_session(entry: RequestContext[HttpEndpoint], facts: RequestFacts) -> None:
    """A call without a session's config has the one that its caller's key is for."""
    if entry.match.endpoint.sideband and not facts.spends and entry.caller.session is None:
        raise BadRequest(
            "the call names no session; send a form with sdp and session, or a key from /v1/realtime/client_secrets",
            param="session",
        )


def provider_access(entry: RequestContext[Endpoint]) -> tuple[ProviderSettings, Secret]:
    """Where the provider is, and the key to use there: for a key to one session, the provider's own behind it.

    Raises:
        ServiceError: this server has no key for it.
    """
    provider = entry.match.provider.name
    settings = entry.snapshot.settings.providers.get(provider)
    key = entry.snapshot.provider_key(entry.caller.project_id, provider)
    if settings is None or key is None:
        raise ServiceError(
            f"this server has no key for {provider}; add providers.{provider} to its configuration",
            code="provider_not_configured",
        )
    session = entry.caller.session
    return settings, key if session is None else session.provider_key


def passed_headers(entry: RequestContext[Endpoint]) -> list[tuple[str, str]]:
    """The client's headers that go on.

    Raises:
        BadRequest: one of them holds the client's token.
    """
    provider = entry.match.provider
    forward = entry.snapshot.settings.forward_headers
    passed = filter_request_headers(
        entry.headers,
        allowed=provider.passed_headers | forward if forward else provider.passed_headers,
        prefixes=provider.passed_prefixes,
        withheld=provider.withheld_headers,
    )
    _refuse_token_in_headers(passed, entry.token.reveal())
    return passed


def check_spends(entry: RequestContext[Endpoint], spends: Iterable[Spend], at: datetime) -> None:
    """Check that the caller may use each model, and that all it can cost has a price at `at`.

    Raises:
        CallerError: a model is not granted or not priced.
    """
    provider = entry.match.provider.name
    project = entry.snapshot.projects[entry.caller.project_id]
    for spend in spends:
        require_model(entry.caller, project, provider, spend.model)
        entry.snapshot.tariffs[provider].admit(entry.priced_as, spend, at)


def _parse(entry: RequestContext[HttpEndpoint], body: bytes) -> ParsedRequest:
    parse = entry.match.endpoint.parse
    if parse is None:
        return ParsedRequest(RequestFacts(body_bytes=len(body)), body)
    encoding = _sent(entry, "content-encoding")
    if encoding and encoding.lower() != "identity":
        raise BadRequest(f"a body with Content-Encoding {encoding[:40]!r} cannot be read here; send it uncompressed")
    return parse(_view(entry, body))


def _view(entry: RequestContext[HttpEndpoint], body: bytes) -> RequestView:
    return RequestView(body, _sent(entry, "content-type"), entry.match.path_id, entry.match.query, entry.headers)


def _sent(entry: RequestContext[Endpoint], name: str) -> str:
    """What the client sent as the header `name` (lower case), several lines joined; "" where there is none."""
    return ",".join([value for key, value in entry.headers if len(key) == len(name) and key.lower() == name])


def _check_model_in_path(entry: RequestContext[Endpoint]) -> None:
    """A model is shown to those who can use it, and to nobody else."""
    model = entry.match.path_id
    path = entry.match.endpoint.path
    if model is None or path != _MODEL or entry.snapshot.settings.models_list == "provider":
        return
    if not usable_model(entry, model):
        raise NotFound(f"the model {model[:100]!r} does not exist, or you have no access to it", code="model_not_found")


def usable_model(entry: RequestContext[Endpoint], model: str) -> bool:
    """Whether `model` has a price and is granted to the caller and its project."""
    provider = entry.match.provider.name
    return (
        entry.snapshot.prices.resolve(provider, model) is not None
        and allows(entry.caller.granted, provider, model)
        and allows(entry.snapshot.projects[entry.caller.project_id].models, provider, model)
    )


def _intent(entry: RequestContext[Endpoint], facts: RequestFacts, request_id: str) -> RequestIntent:
    return RequestIntent(
        request_id=request_id,
        caller=entry.caller,
        provider=entry.match.provider.name,
        endpoint=entry.match.upstream_target.partition("?")[0],
        method=entry.match.endpoint.method,
        model_requested=facts.model,
        started_at=entry.started_at,
        annotations=read_annotations(entry.headers),
    )


def refuse_token_in_target(target: str, token: str) -> None:
    """The target goes to the provider byte for byte, so a credential in it would go there too."""
    if token in target or token in unquote_plus(target):
        raise BadRequest("the path or query holds your token; send it in the Authorization header only")


def _refuse_token_in_headers(passed: Headers, token: str) -> None:
    """Headers are passed by their names, whole families of them; some client brings its key in one of its own."""
    for name, value in passed:
        if token in value:
            raise BadRequest(f"the header {name} would take your token to the provider; leave it out")
