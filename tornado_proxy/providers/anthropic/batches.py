"""/v1/messages/batches: many messages at the batch rate, whose usage comes with the results, hours later.

    create    every request's model must have a batch price; the record is pending until the batch has ended
    results   JSON lines, unordered: succeeded lines state usage, errored, canceled and expired ones are free

Each line is one reading at its own model; a custom_id that comes twice counts once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from tornado_proxy.domain.errors import BadRequest, BodyNotReadable
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.usage import Basis, Meter, Reading, UsageReport
from tornado_proxy.providers.anthropic.usage import readings_of
from tornado_proxy.providers.endpoint import AnswerHead, Endpoint, Later, ParsedRequest, UsageReader
from tornado_proxy.providers.json_body import read_members

PATH = "/v1/messages/batches"

#: The tier of every message of a batch, in the registry's words.
_TIER = "batch"
_TEXT = frozenset({Meter.INPUT, Meter.OUTPUT})

#: A member that names where results are, in two parts: what stands before the provider's address, and its path.
_RESULTS_URL = re.compile(rb'("results_url"\s*:\s*")https?://[^/"\\]+(/v1/messages/batches/[^"\\]*")')

#: Bytes of one result line; a message has at most some 10 MB.
_MAX_LINE_BYTES = 64 * 1024 * 1024


def parse(body: bytes, content_type: str) -> ParsedRequest:
    """The facts of a new batch: one spend for each model, named with the first request that asks for it."""
    requests = read_members(body, ("requests",)).get("requests")
    if not isinstance(requests, list) or not requests:
        raise BodyNotReadable('"requests" must be a list of at least one request', param="requests")
    models = dict(_models(requests))
    spends = tuple(Spend(model, _TEXT, service_tier=_TIER, speed=speed) for (model, speed) in models)
    return ParsedRequest(RequestFacts(spends=spends, service_tier=_TIER, body_bytes=len(body)), body)


def _models(requests: list[Any]) -> Iterator[tuple[tuple[str, str | None], None]]:
    for number, request in enumerate(requests):
        params = request.get("params") if isinstance(request, dict) else None
        model = params.get("model") if isinstance(params, dict) else None
        if not isinstance(params, dict) or not isinstance(model, str):
            raise BadRequest(f"requests[{number}] names no model", param=f"requests[{number}].params.model")
        speed = params.get("speed")
        yield (model, speed if isinstance(speed, str) else None), None


class BatchCreateReader:
    """The answer to a new batch: its id."""

    def __init__(self, head: AnswerHead) -> None:
        self._ok = head.ok
        self._chunks: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if self._ok:
            self._chunks.append(data)

    def close(self, *, complete: bool) -> None:
        """Nothing to end."""

    def result(self) -> UsageReport:
        """Pending, under the batch's id."""
        if not self._ok:
            return UsageReport(basis=Basis.FREE)
        batch_id = _object(b"".join(self._chunks)).get("id")
        if isinstance(batch_id, str):
            return UsageReport(basis=Basis.PENDING, object_id=batch_id)
        return UsageReport(basis=Basis.UNSETTLED, faults=("the provider did not say which batch it created",))


class BatchResultsReader:
    """The results of a batch, line by line."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._seen: set[object] = set()
        self._readings: list[Reading] = []
        self._faults: list[str] = []

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._read(bytes(self._line) + line)
            self._line.clear()
        if len(self._line) + len(rest) <= _MAX_LINE_BYTES:
            self._line += rest
        else:
            self._faults.append("a result line is too long to be read")

    def close(self, *, complete: bool) -> None:
        """Read a last line without an end."""
        self._read(bytes(self._line))
        if not complete:
            self._faults.append("the results broke off")

    def result(self) -> UsageReport:
        """All that succeeded, as readings."""
        faults = tuple(dict.fromkeys(self._faults))
        basis = Basis.UNSETTLED if faults else Basis.REPORTED
        raw = msgspec.json.encode({"results": len(self._seen), "succeeded": len(self._readings)}).decode()
        return UsageReport(tuple(self._readings), basis, raw, faults=faults)

    def _read(self, line: bytes) -> None:
        if not line.strip():
            return
        entry = _object(line)
        custom_id, result = entry.get("custom_id"), entry.get("result")
        if not isinstance(result, dict):
            self._faults.append("a result line cannot be read")
            return
        if custom_id in self._seen:
            return
        self._seen.add(custom_id)
        message = result.get("message")
        usage = message.get("usage") if isinstance(message, dict) else None
        if result.get("type") == "succeeded" and isinstance(message, dict) and isinstance(usage, dict):
            model = message.get("model")
            terms = {"service_tier": _TIER, **{name: value for name, value in usage.items() if value is not None}}
            self._readings.extend(readings_of(terms, model if isinstance(model, str) else None, self._faults))


def _reader(facts: RequestFacts, head: AnswerHead) -> UsageReader:
    return BatchCreateReader(head)


def _results_reader(facts: RequestFacts, head: AnswerHead) -> UsageReader:
    return BatchResultsReader()


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(data) if data else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


_LATER = Later(
    state=lambda batch_id: f"{PATH}/{batch_id}",
    finished=lambda body: _object(body).get("processing_status") == "ended",
    results=lambda batch_id: f"{PATH}/{batch_id}/results",
    reader=_results_reader,
    slowest_s=300.0,
)


def own_urls(body: bytes, base_url: str) -> bytes:
    """A batch, or a list of them, with results to fetch from us: SDKs follow `results_url` with the client's token."""
    return _RESULTS_URL.sub(rb"\g<1>" + base_url.encode().replace(b"\\", b"") + rb"\g<2>", body)


def _by_id(method: str, path: str) -> Endpoint:
    return Endpoint("anthropic", method, path, by_id=True, own_urls=own_urls)


BATCH_ENDPOINTS = (
    Endpoint("anthropic", "POST", PATH, parse=parse, reader=_reader, later=_LATER, own_urls=own_urls),
    Endpoint("anthropic", "GET", PATH, lists=PATH, own_urls=own_urls),
    _by_id("GET", PATH + "/{id}"),
    _by_id("DELETE", PATH + "/{id}"),
    _by_id("POST", PATH + "/{id}/cancel"),
    Endpoint("anthropic", "GET", PATH + "/{id}/results", by_id=True),
)
