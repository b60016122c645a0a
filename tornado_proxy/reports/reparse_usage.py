"""Parses the stored usage of a record again, for records that were stored without being rated."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.providers.contract import ResponseHead
from tornado_proxy.providers.registry import PROVIDERS
from tornado_proxy.providers.route_table import RouteTable
from tornado_proxy.providers.shared.response_readers import make_usage_reader

_ROUTES = RouteTable(PROVIDERS)


def reparse_usage(record: Mapping[str, object]) -> UsageReport | None:
    """Return the usage report of a record, or None if its usage is missing or incomplete.

    The tier is the one that the usage states, else the standard one: records store nothing else of the response.
    """
    usage, model, requested = (record[name] for name in ("usage", "model", "model_requested"))
    endpoint = _ROUTES.find_http_endpoint(str(record["provider"]), str(record["method"]), str(record["endpoint"]))
    if not isinstance(usage, str) or endpoint is None or endpoint.reader is None:
        return None
    stated = json.loads(usage)
    if not isinstance(stated, dict):
        return None
    facts = RequestFacts(model=requested if isinstance(requested, str) else None)
    # The endpoint's own reader parses a minimal response with this usage, so that no second parser can drift from it.
    reader = make_usage_reader(endpoint, facts, ResponseHead(200, "application/json"))
    reader.feed(json.dumps({"id": record["object_id"], "model": model, "usage": stated}).encode())
    reader.close(complete=True)
    report = reader.result()
    return report if report.items and report.basis is not Basis.UNSETTLED else None
