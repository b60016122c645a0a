"""A request on its way through the gateway: its head, then its route and caller."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Generic

import msgspec

from tornado_proxy.domain.identity import Caller, Project, Secret
from tornado_proxy.pricing.book.price_book import Tariff
from tornado_proxy.providers.contract import Provider
from tornado_proxy.providers.route_table import EndpointT, Match
from tornado_proxy.snapshot import Snapshot
from tornado_proxy.wire.client_facts import StatedHeaders, find_stated_headers
from tornado_proxy.wire.headers import index_headers
from tornado_proxy.wire.redaction import Redaction

#: Bytes of one request id, and ids drawn at a time: the system call costs more than all else of an id.
_ID_BYTES, _IDS_PER_DRAW = 16, 256


class RequestHead(msgspec.Struct, frozen=True):
    """Request line and headers.

    `target` is raw; `received_at` is aware UTC; `peer` is the address of the connection's other end, "" if it has none;
    `scheme` is that of the connection, http or https.  `lines` are the values of each header by its name in lower case;
    they follow from `headers`.
    """

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    received_at: datetime
    peer: str = ""
    scheme: str = "http"
    lines: Mapping[str, Sequence[str]] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.lines and self.headers:
            msgspec.structs.force_setattr(self, "lines", index_headers(self.headers))

    def header(self, name: str) -> str:
        """Return the value of header `name` (lower case), several lines joined by commas, "" if missing."""
        return ",".join(self.lines.get(name, ()))


class RequestContext(msgspec.Struct, Generic[EndpointT], frozen=True):
    """A request whose route and caller are known.

    Attributes:
        snapshot: The configuration that the request keeps to its end, whatever is reloaded meanwhile.
        endpoint: The endpoint that serves the request.
        provider: The provider that the request goes to.
        upstream_target: The provider's path, and the query.
        path_id: The `{id}` segment of the path, None if the path has none.
        caller: The caller that the credential identifies.
        project: The caller's project.
        tariff: The provider's prices when the request arrived.
        token: The credential.
        head: Request line and headers.
        redaction: Masks the provider keys of the configuration, and the short-lived one that a session key holds.
        stated: The headers that describe the request.
    """

    snapshot: Snapshot
    endpoint: EndpointT
    provider: Provider
    upstream_target: str
    path_id: str | None
    caller: Caller
    project: Project
    tariff: Tariff
    token: Secret
    head: RequestHead
    redaction: Redaction
    stated: StatedHeaders

    @property
    def has_own_key(self) -> bool:
        """True if the project's key for the provider is its own (Snapshot.has_own_key)."""
        return self.snapshot.has_own_key(self.project.id, self.provider.name)

    @property
    def on_client_disconnect(self) -> str:
        """What to do if the client disconnects, `drain` or `cancel`: the project's word, else the server's."""
        return self.project.on_client_disconnect or self.snapshot.settings.streams.on_client_disconnect

    @property
    def labels(self) -> Mapping[str, str]:
        """The names and values that records of the request have; those of the credential win."""
        own = self.caller.labels
        return {**self.project.labels, **own} if own else self.project.labels

    @property
    def query(self) -> str:
        """The raw query, without the question mark."""
        return self.upstream_target.partition("?")[2]


def make_context(
    snapshot: Snapshot, match: Match[EndpointT], caller: Caller, token: str, head: RequestHead
) -> RequestContext[EndpointT]:
    """Return the context of a request.  What each step of a request needs is looked up here, once."""
    project = snapshot.projects[caller.project_id]
    return RequestContext(
        snapshot=snapshot,
        endpoint=match.endpoint,
        provider=match.provider,
        upstream_target=match.upstream_target,
        path_id=match.path_id,
        caller=caller,
        project=project,
        tariff=snapshot.find_tariff(
            match.provider.name, project.id, own=snapshot.find_account(project.id, match.provider.name) is not None
        ),
        token=Secret(token),
        head=head,
        redaction=snapshot.redaction
        if caller.session is None
        else snapshot.redaction.with_secret(caller.session.provider_key),
        stated=find_stated_headers(head.headers, project.attribution.end_user_header),
    )


#: Ids that have been drawn and not been used.
_request_ids: list[str] = []


def new_request_id() -> str:
    """Return a new id of 128 random bits, which responses carry as `Llm-Proxy-Request-Id`."""
    if not _request_ids:
        drawn = os.urandom(_ID_BYTES * _IDS_PER_DRAW).hex()
        _request_ids.extend(f"req_{drawn[at : at + 2 * _ID_BYTES]}" for at in range(0, len(drawn), 2 * _ID_BYTES))
    return _request_ids.pop()
