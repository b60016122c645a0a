"""/v1/generate: the charged endpoint of the fake provider.

{"model": "parrot-1", "prompt": "..."}  ->  {"id": "gen_1", "text": "...", "units": {"read": 12, "written": 3}}
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.usage import Basis, Meter, Quantity, UsageItem, UsageReport
from tornado_proxy.providers.contract import HttpEndpoint, ParsedRequest, RequestView, ResponseHead, UsageReader
from tornado_proxy.providers.shared.json_body import read_members, read_model
from tornado_proxy.providers.shared.json_skimmer import KEEP
from tornado_proxy.providers.shared.json_values import as_object, as_text, read_count
from tornado_proxy.providers.shared.response_readers import JsonReader


def parse(request: RequestView) -> ParsedRequest:
    """Return the facts of a request.

    Raises:
        InvalidBody: the body is not a JSON object or names no model.
    """
    model = read_model(read_members(request.body, ("model",)))
    spend = Spend(model, frozenset({Meter.INPUT, Meter.OUTPUT}))
    return ParsedRequest(RequestFacts(model=model, spends=(spend,), body_bytes=len(request.body)), request.body)


def make_reader(facts: RequestFacts, head: ResponseHead) -> UsageReader:
    """Return the reader of a response."""
    return JsonReader({"id": KEEP, "units": KEEP}, report_body, lambda _: report_body({}))


def report_body(response: dict[str, object]) -> UsageReport:
    """Return the stated units; unsettled if the response states none."""
    units = as_object(response.get("units"))
    faults: list[str] = []
    read, written = (read_count(units, name, faults) for name in ("read", "written"))
    quantities = (Quantity(Meter.INPUT, Decimal(read)), Quantity(Meter.OUTPUT, Decimal(written)))
    return UsageReport(
        items=(UsageItem(quantities, context_tokens=read),),
        basis=Basis.REPORTED if units and not faults else Basis.UNSETTLED,
        raw=msgspec.json.encode(units).decode(),
        object_id=as_text(response.get("id")),
        faults=tuple(faults),
    )


GENERATE = HttpEndpoint("POST", "/v1/generate", parse=parse, reader=make_reader)
