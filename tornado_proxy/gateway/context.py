"""A request on its way through the gateway: its head, then its route and caller."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic

from tornado_proxy.domain.identity import Caller, Project, Secret
from tornado_proxy.pricing.book.tariff import Tariff
from tornado_proxy.providers.contract import Provider
from tornado_proxy.providers.route_table import EndpointT, Match
from tornado_proxy.snapshot import Snapshot

#: Bytes of one request id, and ids drawn at a time: the system call costs more than all else of an id.
_ID_BYTES, _IDS_PER_DRAW = 16, 256


@dataclass(frozen=True, slots=True)
class RequestHead:
    """Request line and headers.  `target` is raw; `received_at` is aware UTC."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    received_at: datetime

    def header(self, name: str) -> str:
        """Return the value of header `name` (lower case), several lines joined by commas, "" if missing."""
        return ",".join([value for key, value in self.headers if len(key) == len(name) and key.lower() == name])


@dataclass(frozen=True, slots=True)
class RequestContext(Generic[EndpointT]):
    """A request whose route and caller are known.  `token` is the credential that it came with.

    `snapshot` is the configuration that the request keeps to its end, whatever is reloaded meanwhile.
    """

    snapshot: Snapshot
    match: Match[EndpointT]
    caller: Caller
    token: Secret
    head: RequestHead

    @property
    def endpoint(self) -> EndpointT:
        """The endpoint that serves the request."""
        return self.match.endpoint

    @property
    def provider(self) -> Provider:
        """The provider that the request goes to."""
        return self.match.provider

    @property
    def project(self) -> Project:
        """The caller's project."""
        return self.snapshot.projects[self.caller.project_id]

    @property
    def tariff(self) -> Tariff:
        """The provider's prices when the request arrived."""
        return self.snapshot.tariffs[self.match.provider.name]


def _draw_request_ids() -> Iterator[str]:
    while True:
        drawn = os.urandom(_ID_BYTES * _IDS_PER_DRAW).hex()
        yield from (f"req_{drawn[at : at + 2 * _ID_BYTES]}" for at in range(0, len(drawn), 2 * _ID_BYTES))


_request_ids = _draw_request_ids()


def new_request_id() -> str:
    """Return a new id of 128 random bits, which responses carry as `Llm-Proxy-Request-Id`."""
    return next(_request_ids)
