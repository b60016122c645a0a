"""Reads the raw usage of a record again, where it was kept and not rated."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.providers.contract import ResponseHead
from tornado_proxy.providers.registry import PROVIDERS
from tornado_proxy.providers.route_table import RouteTable

_ROUTES = RouteTable(PROVIDERS)


def read_again(record: Mapping[str, object]) -> UsageReport | None:
    """The report of an answer that held the record's usage and model; None where that says nothing.

    The tier is the one that usage states, else the standard one: records keep the rest of the answer nowhere.
    """
    usage, model, requested = (record[name] for name in ("usage", "model", "model_requested"))
    endpoint = _ROUTES.http_endpoint(str(record["provider"]), str(record["method"]), str(record["endpoint"]))
    if not isinstance(usage, str) or endpoint is None or endpoint.reader is None:
        return None
    stated = json.loads(usage)
    if not isinstance(stated, dict):
        return None
    facts = RequestFacts(model=requested if isinstance(requested, str) else None)
    reader = endpoint.usage_reader(facts, ResponseHead(200, "application/json"))
    reader.feed(json.dumps({"id": record["object_id"], "model": model, "usage": stated}).encode())
    reader.close(complete=True)
    report = reader.result()
    return report if report.items and report.basis is not Basis.UNSETTLED else None
