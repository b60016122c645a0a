"""Every recorded response of Anthropic gives the quantities that independent libraries computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal

import pytest
import yaml

from tests.providers.anthropic.costs import NOW, bundled_tariff
from tests.providers.reading import read, read_three_ways
from tests.providers.recorded import FOLDER, exchange, expected_lines, response_body
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.providers.anthropic.batches.results import BatchResultsReader
from tornado_proxy.providers.anthropic.provider import ANTHROPIC
from tornado_proxy.providers.contract import RequestView, ResponseHead, UsageReader
from tornado_proxy.providers.route_table import RouteTable
from tornado_proxy.providers.shared.response_readers import make_usage_reader

PRICES = FOLDER.parents[2] / "conf" / "prices" / "anthropic.yaml"
ALIASES = yaml.safe_load(PRICES.read_text())["aliases"]

ROUTES = RouteTable([ANTHROPIC])

NAMES = sorted(
    path.stem for path in FOLDER.glob("*.json") if json.loads(path.read_text())["endpoint"].startswith("anthropic.")
)
STATED = [name for name in NAMES if json.loads((FOLDER / "expected" / f"{name}.json").read_text())["usage_present"]]

#: The basis of the recorded responses that is not REPORTED.  Tools wrote to the cache after the split was stated.
BASES = {
    "messages-refusal": Basis.FREE,
    "messages-web-search": Basis.INFERRED,
    "messages-cache-split-stream": Basis.INFERRED,
}


def make_reader(name: str) -> Callable[[], UsageReader] | None:
    """Return a factory of readers for a recorded response, None if its endpoint is free."""
    recorded = exchange(name)
    request, response = recorded["request"], recorded["response"]
    if recorded["kind"] == "jsonl":  # a client's request for results is free; the proxy reads them itself
        return BatchResultsReader
    endpoint = ROUTES.match_http(request["method"], "/anthropic" + request["path"]).endpoint
    parse = endpoint.parse
    if not endpoint.charged or parse is None:
        return None
    default = "text/event-stream" if recorded["kind"] == "sse" else ""
    media_type = response["headers"].get("content-type", default).partition(";")[0]
    facts = parse(RequestView(json.dumps(request["body"]).encode(), "application/json")).facts
    return lambda: make_usage_reader(endpoint, facts, ResponseHead(response["status"], media_type))


def lines(report: UsageReport) -> list[tuple[str, str, Decimal]]:
    """Return (model, meter, quantity) of every quantity, sorted; models have the names of the price file."""
    return sorted(
        (ALIASES.get(item.model, item.model), quantity.meter.value, quantity.amount)
        for item in report.items
        for quantity in item.quantities
    )


@pytest.mark.parametrize("name", STATED)
def test_recorded_response_gives_the_expected_quantities_however_it_is_split(name: str) -> None:
    make = make_reader(name)
    assert make is not None

    report = bundled_tariff().charge(read_three_ways(make, response_body(name)), None, NOW).report

    assert lines(report) == expected_lines(name)
    assert report.basis is BASES.get(name, Basis.REPORTED)
    assert bool(report.faults) is (report.basis is Basis.INFERRED)


@pytest.mark.parametrize("name", [name for name in STATED if name != "batch-results"])
def test_raw_usage_is_the_final_merged_usage(name: str) -> None:
    make = make_reader(name)
    assert make is not None
    figures = json.loads((FOLDER / "expected" / f"{name}.json").read_text())

    report = read(make(), [response_body(name)])

    assert report.raw is not None
    assert json.loads(report.raw) == figures["readings"][0]["usage"]


@pytest.mark.parametrize(
    ("name", "basis"),
    [
        pytest.param("messages-error-401", Basis.FREE, id="an error is free"),
        pytest.param("batch-cancel", Basis.PENDING, id="a new batch is pending"),
        pytest.param("batch-create", None, id="reading a batch is free"),
        pytest.param("count-tokens", None, id="counting tokens is free"),
        pytest.param("anthropic-models", None, id="listing models is free"),
        pytest.param("complete-json", Basis.UNSETTLED, id="legacy completions state no usage"),
        pytest.param("complete-stream", Basis.UNSETTLED, id="legacy completion streams state no usage"),
    ],
)
def test_recorded_response_without_usage_has_its_basis_and_no_items(name: str, basis: Basis | None) -> None:
    make = make_reader(name)
    if make is None:
        assert basis is None
        return

    report = read_three_ways(make, response_body(name))

    assert report.basis is basis
    assert report.items == ()


def test_every_recorded_response_is_tested() -> None:
    assert len(STATED) == 12
    assert len(NAMES) == 19


def test_new_batch_is_pending_with_its_id() -> None:
    make = make_reader("batch-cancel")  # the recording begins with the creation of the batch
    assert make is not None

    assert read(make(), [response_body("batch-cancel")]).object_id == "msgbatch_016z7nD8oj5sT4pMEcEnvJQQ"
