"""/v1/messages/batches: many messages at the batch rate, whose usage comes with the results, hours later.

    create    all that any of its requests can spend must have a batch price; the record is pending until the batch ends
    results   batch_results.py; they are read once by the proxy itself, so a client's own reading of them is free

Source: Anthropic API reference, "Create a Message Batch".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import msgspec

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.providers.anthropic.batches.results import BATCH_TIER, results_reader
from tornado_proxy.providers.anthropic.messages.report import decode_object
from tornado_proxy.providers.anthropic.messages.request import MEMBERS, facts_of
from tornado_proxy.providers.contract import (
    DeferredUsage,
    HttpEndpoint,
    OwnedList,
    OwnedObject,
    ParsedRequest,
    RequestView,
    ResponseEdits,
    ResponseHead,
    UsageReader,
)
from tornado_proxy.providers.shared.json_body import list_member, member_bytes, read_members, text_member

PATH = "/v1/messages/batches"

#: A member that names where results are, in two parts: what stands before the provider's address, and its path.
_RESULTS_URL = re.compile(rb'("results_url"\s*:\s*")https?://[^/"\\]+(/v1/messages/batches/[^"\\]*")')

_ENTRIES = msgspec.json.Decoder(list[msgspec.Raw])


def parse(request: RequestView) -> ParsedRequest:
    """The facts of a new batch: what its requests can spend, each thing once.

    `facts.model` is the model of all requests, None where they have several.

    Raises:
        InvalidBody: a request cannot be read; the message names it by its place and `custom_id`.
    """
    body = request.body
    if not list_member(read_members(body, ("requests",)), "requests"):
        raise InvalidBody('"requests" must be a list of at least one request', param="requests")
    requests = list(_requests(body))
    models = {one.model for one in requests}
    facts = RequestFacts(
        model=models.pop() if len(models) == 1 else None,
        spends=tuple(dict.fromkeys(spend for one in requests for spend in one.spends)),
        terms=Terms(service_tier=BATCH_TIER),
        body_bytes=len(body),
        references=tuple(dict.fromkeys(reference for one in requests for reference in one.references)),
    )
    return ParsedRequest(facts, body)


def _requests(body: bytes) -> Iterator[RequestFacts]:
    """The facts of each request, at the batch tier: whatever tier it asks for, it gets that one."""
    for number, entry in enumerate(_ENTRIES.decode(member_bytes(body, "requests") or b"[]")):
        place = f"requests[{number}]"
        try:
            request = bytes(entry)
            members = read_members(request, ("custom_id", "params"))
            custom_id = text_member(members, "custom_id")
            place += "" if custom_id is None else f" (custom_id {custom_id[:64]!r})"
            params = member_bytes(request, "params") or b"{}"
            facts = facts_of(params, read_members(params, MEMBERS))
        except InvalidBody as error:
            raise InvalidBody(f"{place}: {error.message}", param=f"requests[{number}]") from None
        yield replace(facts, spends=tuple(_at_batch_tier(spend) for spend in facts.spends))


def _at_batch_tier(spend: Spend) -> Spend:
    return replace(spend, terms=replace(spend.terms, service_tier=BATCH_TIER))


def reader(facts: RequestFacts, head: ResponseHead) -> UsageReader:
    """What reads the answer to a new batch."""
    return BatchCreateReader()


class BatchCreateReader:
    """The answer to a new batch: its id."""

    object_id: str | None = None

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._chunks.append(data)

    def close(self, *, complete: bool) -> None:
        """Nothing to end."""

    def result(self) -> UsageReport:
        """Pending, under the batch's id."""
        batch_id = decode_object(b"".join(self._chunks)).get("id")
        if isinstance(batch_id, str):
            return UsageReport(basis=Basis.PENDING, object_id=batch_id)
        return UsageReport(basis=Basis.UNSETTLED, faults=("the provider did not say which batch it created",))


_DEFERRED_USAGE = DeferredUsage(
    state=lambda batch_id: f"{PATH}/{batch_id}",
    finished=lambda body: decode_object(body).get("processing_status") == "ended",
    results=lambda batch_id: f"{PATH}/{batch_id}/results",
    reader=results_reader,
    max_interval_s=300.0,
)


def rewrite_urls(body: bytes, base_url: str) -> bytes:
    """A batch, or a list of them, with results to fetch from us: SDKs follow `results_url` with the client's token."""
    return _RESULTS_URL.sub(rb"\g<1>" + base_url.encode().replace(b"\\", b"") + rb"\g<2>", body)


def _by_id(method: str, path: str) -> HttpEndpoint:
    return HttpEndpoint(method, path, objects=OwnedObject(), response_edits=ResponseEdits(rewrite_urls=rewrite_urls))


BATCH_ENDPOINTS = (
    HttpEndpoint(
        "POST",
        PATH,
        parse=parse,
        reader=reader,
        deferred_usage=_DEFERRED_USAGE,
        response_edits=ResponseEdits(rewrite_urls=rewrite_urls),
    ),
    HttpEndpoint("GET", PATH, objects=OwnedList(PATH), response_edits=ResponseEdits(rewrite_urls=rewrite_urls)),
    _by_id("GET", PATH + "/{id}"),
    _by_id("DELETE", PATH + "/{id}"),
    _by_id("POST", PATH + "/{id}/cancel"),
    HttpEndpoint("GET", PATH + "/{id}/results", objects=OwnedObject()),
)
