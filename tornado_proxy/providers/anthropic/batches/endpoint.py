"""/v1/messages/batches: many messages at the batch price; their usage is in the results, up to a day later.

    create    every spend of every request needs a batch price; the record is pending until the batch ends
    results   results.py; the proxy itself reads them once, so a client's request for them is free

Source: Anthropic API reference, "Create a Message Batch".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec
from msgspec.structs import replace

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.domain.request import RequestFacts, Spend, WorkLimits
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, Meter, UsageReport
from tornado_proxy.providers.anthropic.batches.results import BATCH_TIER, ENDED_KINDS, make_results_reader
from tornado_proxy.providers.anthropic.messages.cache_lifetime import find_cache_ttl
from tornado_proxy.providers.anthropic.messages.request import MEMBERS, read_facts
from tornado_proxy.providers.contract import (
    DeferredUsage,
    HttpEndpoint,
    ParsedRequest,
    RequestView,
    ResponseEdits,
    ResponseHead,
    UsageReader,
)
from tornado_proxy.providers.owned_objects import OwnedList, OwnedObject
from tornado_proxy.providers.shared.json_body import read_members, read_raw, read_text, split_list, split_members
from tornado_proxy.providers.shared.json_skimmer import KEEP
from tornado_proxy.providers.shared.json_values import decode_object
from tornado_proxy.providers.shared.response_readers import JsonReader

PATH = "/v1/messages/batches"

#: Seconds between two polls of a batch.  Most batches end within an hour, the limit is 24 hours.
MAX_POLL_INTERVAL_S = 300.0

#: The member that states the URL of the results, and its value.
_RESULTS_URL = re.compile(rb'("results_url"\s*:\s*)("(?:[^"\\]|\\.)*")')

#: The path of results at the provider, whatever its base URL.
_RESULTS_PATH = re.compile(r"https?://[^?#]*?(/v1/messages/batches/[A-Za-z0-9_-]+/results)")

_TEXT = msgspec.json.Decoder(str)


def parse(request: RequestView) -> ParsedRequest:
    """Return the facts of a new batch: the spends of all its requests, each once.

    `facts.model` is set if all requests have the same model.

    Raises:
        InvalidBody: a request cannot be parsed; the message names its index and `custom_id`.
    """
    body = request.body
    # A batch has up to 100,000 requests, most of them with the same spends; admission checks each spend once.
    models: set[str | None] = set()
    spends: dict[Spend, None] = {}
    references: dict[str, None] = {}
    works: list[WorkLimits] = []
    for facts in _read_requests(_split_requests(body)):
        models.add(facts.model)
        spends.update(dict.fromkeys(facts.spends))
        references.update(dict.fromkeys(facts.references))
        works.append(facts.work)
    facts = RequestFacts(
        model=models.pop() if len(models) == 1 else None,
        spends=tuple(dict.fromkeys(map(_set_batch_tier, spends))),
        terms=Terms(service_tier=BATCH_TIER, cache_ttl=find_cache_ttl(body)),
        body_bytes=len(body),
        references=tuple(references),
        work=_add_work(works),
        # Results do not say which tools their requests had: one request whose time is charged decides for all.
        charges_code_execution=any(Meter.CONTAINER_SECONDS in spend.meters for spend in spends),
    )
    return ParsedRequest(facts, body)


def _add_work(works: Sequence[WorkLimits]) -> WorkLimits:
    """Return the limits of all requests of a batch together."""
    outputs = [work.output_tokens for work in works]
    calls = [work.tool_calls for work in works]
    return WorkLimits(
        prompts=len(works),
        output_tokens=None if None in outputs else sum(output for output in outputs if output is not None),
        text_only=all(work.text_only for work in works),
        tool_calls=None if None in calls else max((count for count in calls if count is not None), default=0),
        names_models=all(work.names_models for work in works),
    )


def _split_requests(body: bytes) -> list[msgspec.Raw]:
    """Return the requests of a batch as written.  They are decoded one by one: all together take ten times the memory.

    Raises:
        InvalidBody: the body has no list of requests, or two.
    """
    members = [raw for name, raw in split_members(body) if name == "requests"]
    if len(members) > 1:
        raise InvalidBody('the body contains "requests" twice; send it once', param="requests")
    requests = split_list(members[0]) if members and bytes(memoryview(members[0])[:1]) == b"[" else []
    if not requests:
        raise InvalidBody('"requests" must be a list of at least one request', param="requests")
    return requests


def _read_requests(requests: list[msgspec.Raw]) -> Iterator[RequestFacts]:
    """Yield the facts of each request."""
    for index, entry in enumerate(requests):
        key = name = f"requests[{index}]"
        try:
            request = bytes(entry)
            members = read_members(request, ("custom_id", "params"))
            custom_id = read_text(members, "custom_id")
            if custom_id is not None:
                name = f"{key} (custom_id {custom_id[:64]!r})"
            # From its own bytes, so that a member that one request repeats is found.
            params = read_raw(request, "params") or b"{}"
            facts = read_facts(params, read_members(params, MEMBERS))
        except InvalidBody as error:
            raise InvalidBody(f"{name}: {error.message}", param=key) from None
        yield facts


def _set_batch_tier(spend: Spend) -> Spend:
    """Return the spend of a request in a batch: its tier is always batch, whatever tier it asks for."""
    return replace(spend, terms=replace(spend.terms, service_tier=BATCH_TIER))


def make_reader(facts: RequestFacts, head: ResponseHead) -> UsageReader:
    """Return the reader of the response to a new batch."""
    return JsonReader({"id": KEEP}, _report_created, _report_without_id)


def _report_created(batch: dict[str, object]) -> UsageReport | None:
    """Return a pending report with the id of a new batch; None if the response states none."""
    batch_id = batch.get("id")
    return UsageReport(basis=Basis.PENDING, object_id=batch_id) if isinstance(batch_id, str) and batch_id else None


def _report_without_id(response_bytes: int) -> UsageReport:
    return UsageReport(basis=Basis.UNSETTLED, faults=("the response states no id of the created batch",))


def has_ended(state: bytes) -> bool:
    """Return True if the state of a batch says that its results are complete."""
    # A canceled batch has results as well: its requests that had succeeded before are charged.
    return _read_status(state) == "ended"


def is_cancelling(state: bytes) -> bool:
    """Return True if the state of a batch says that it was cancelled and its last requests still run."""
    return _read_status(state) == "canceling"


def _read_status(state: bytes) -> object:
    return (decode_object(state) or {}).get("processing_status")


def rewrite_urls(body: bytes, base_url: str) -> bytes:
    """Return a batch, or a list of batches, whose `results_url` leads to the proxy.

    SDKs request `results_url` with the client's token, which the provider does not know.  Another URL than that of
    results becomes null, which SDKs read as "not ready", for the same reason.
    """

    def replace_url(member: re.Match[bytes]) -> bytes:
        results = _RESULTS_PATH.fullmatch(_TEXT.decode(member[2]))
        return member[1] + (b"null" if results is None else msgspec.json.encode(base_url + results[1]))

    return _RESULTS_URL.sub(replace_url, body)


def check_results(state: bytes, report: UsageReport) -> str | None:
    """Return a fault if the results have fewer requests than the state of the batch counts, else None."""
    counts = (decode_object(state) or {}).get("request_counts")
    if not isinstance(counts, dict):
        return None
    stated = {name: count for name in ENDED_KINDS if isinstance(count := counts.get(name), int)}
    read = msgspec.json.decode(report.raw or "{}", type=dict[str, int])
    if (sum(stated.values()), stated.get("succeeded", 0)) == (read.get("results", 0), read.get("succeeded", 0)):
        return None
    counted = ", ".join(f"{count} {name}" for name, count in stated.items())
    return (
        f"the batch states {counted}; its results have {read.get('results', 0)} lines, "
        f"{read.get('succeeded', 0)} of them succeeded"
    )


_DEFERRED_USAGE = DeferredUsage(
    state=lambda batch_id: f"{PATH}/{batch_id}",
    finished=has_ended,
    results=lambda batch_id: f"{PATH}/{batch_id}/results",
    reader=make_results_reader,
    cancel=lambda batch_id: f"{PATH}/{batch_id}/cancel",
    is_cancelling=is_cancelling,
    max_interval_s=MAX_POLL_INTERVAL_S,
    check=check_results,
)

_EDITS = ResponseEdits(rewrite_urls=rewrite_urls)

BATCH_ENDPOINTS = (
    HttpEndpoint(
        "POST",
        PATH,
        parse=parse,
        reader=make_reader,
        deferred_usage=_DEFERRED_USAGE,
        response_edits=_EDITS,
        takes_batch=True,
    ),
    # Projects share a provider key, so the provider lists the batches of all of them.
    HttpEndpoint("GET", PATH, objects=OwnedList(PATH), response_edits=_EDITS),
    HttpEndpoint("GET", PATH + "/{id}", objects=OwnedObject(), response_edits=_EDITS),
    HttpEndpoint("DELETE", PATH + "/{id}", objects=OwnedObject(), response_edits=_EDITS, ends_usage=_DEFERRED_USAGE),
    HttpEndpoint("POST", PATH + "/{id}/cancel", objects=OwnedObject(), response_edits=_EDITS, ends_work=True),
    HttpEndpoint("GET", PATH + "/{id}/results", objects=OwnedObject()),
)
