"""The alert rules and the dashboard: every expression is valid, and names metrics and labels that the server has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from tests.harness import ROOT, running_proxy
from tests.replay_provider import ProviderResponse, running_replay_provider
from tests.server.chat import CHAT_RESPONSE, post_chat
from tornado_proxy.observability import metrics

RULES = ROOT / "packaging/prometheus/alerts.yaml"
DASHBOARD = ROOT / "packaging/grafana/tornado-proxy.json"

#: Labels that Prometheus adds.
SCRAPE_LABELS = {"job", "instance", "le"}

#: What an operator wants to be told of.
WANTED = {
    "TornadoProxyErrorRate",
    "TornadoProxyUnsettledGrowing",
    "TornadoProxyLedgerFailing",
    "TornadoProxyBudgetAt80Percent",
    "TornadoProxyProviderKeySetAside",
    "TornadoProxyPriceStale",
    "TornadoProxyDrainLimit",
}


def read_rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]]


def read_panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"] if panel["type"] != "row"]


def list_expressions() -> Iterator[Any]:
    """Yield each expression, with the variables of the dashboard replaced as Grafana does."""
    for rule in read_rules():
        yield pytest.param(rule["expr"], id=rule["alert"])
    for panel in read_panels():
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "5m")
            yield pytest.param(
                re.sub(r"\$(job|instance|provider)\b", ".*", expression), id=f"{panel['title']} {target['refId']}"
            )


def find_selectors(expression: str) -> list[promql_parser.VectorSelector]:
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, str]]]:
    """The labels of each series of a server that has served a request."""
    folder = tmp_path_factory.mktemp("proxy")
    with running_replay_provider() as provider, running_proxy(folder, provider.url) as proxy:
        provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
        post_chat(proxy)
        text = proxy.fetch_admin("/metrics")[1]
    series: dict[str, list[dict[str, str]]] = {"up": [{}]}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            series.setdefault(sample.name, []).append(sample.labels)
    return series


def declared_labels() -> dict[str, set[str]]:
    """Return the labels of each metric; those without a series yet too."""
    return {
        metric._name + ("_total" if metric._type == "counter" else ""): set(metric._labelnames)
        for metric in vars(metrics).values()
        if isinstance(metric, MetricWrapperBase)
    }


@pytest.mark.parametrize("expression", list_expressions())
def test_expression_selects_metrics_and_labels_of_the_server(
    expression: str, samples: dict[str, list[dict[str, str]]]
) -> None:
    declared, selectors = declared_labels(), find_selectors(expression)

    assert selectors
    for selector in selectors:
        name = str(selector.name)
        labels = set().union(*samples.get(name, [])) | declared.get(name, set())
        assert name in samples or name in declared
        assert {matcher.name for matcher in selector.matchers.matchers} <= labels | SCRAPE_LABELS


@pytest.mark.parametrize("expression", list_expressions())
def test_grouping_names_labels_of_the_selected_metrics(expression: str) -> None:
    declared = declared_labels()
    names = {re.sub(r"_bucket$", "", str(selector.name)) for selector in find_selectors(expression)}
    labels = set().union(*(declared.get(name, set()) for name in names))

    grouped = {label for match in re.findall(r"\bby \(([^)]*)\)", expression) for label in re.findall(r"\w+", match)}
    assert grouped <= labels | SCRAPE_LABELS


def test_selected_label_values_exist_before_the_first_event(samples: dict[str, list[dict[str, str]]]) -> None:
    """A counter that appears with its first event has no increase, so that its alert would come with the second."""
    for rule in read_rules():
        for selector in find_selectors(rule["expr"]):
            for matcher in selector.matchers.matchers:
                if str(selector.name).startswith("llm_proxy_") and matcher.name not in ("job", "code"):
                    values = {labels[matcher.name] for labels in samples[str(selector.name)]}
                    assert set(matcher.value.split("|")) <= values


def test_rules_watch_what_an_operator_must_know() -> None:
    rules = read_rules()

    assert {rule["alert"] for rule in rules} >= WANTED
    assert all(rule["annotations"]["summary"] and rule["annotations"]["description"] for rule in rules)
    assert {rule["labels"]["severity"] for rule in rules} == {"critical", "warning", "info"}


def test_dashboard_has_no_member_that_grafana_does_not_know() -> None:
    register_default_plugins()
    source = json.loads(DASHBOARD.read_text("utf-8"))

    loaded = json.loads(JSONEncoder().encode(Dashboard.from_json(source)))

    assert list(find_lost(source, loaded, "")) == []


def find_lost(source: object, loaded: object, path: str) -> Iterator[str]:
    """Yield the paths of members of the source that were lost."""
    if isinstance(source, dict):
        for name, value in source.items():
            if not isinstance(loaded, dict) or name not in loaded:
                yield f"{path}.{name}"
            else:
                yield from find_lost(value, loaded[name], f"{path}.{name}")
    elif isinstance(source, list) and isinstance(loaded, list) and len(source) == len(loaded):
        for at, (value, kept) in enumerate(zip(source, loaded, strict=True)):
            yield from find_lost(value, kept, f"{path}[{at}]")
    elif source != loaded:
        yield path


def test_panels_do_not_overlap() -> None:
    places: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
        at = panel["gridPos"]
        taken = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & places
        assert at["x"] + at["w"] <= 24
        places |= taken


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", str(RULES)), ("test", "rules", str(Path(__file__).with_name("alerts_test.yaml")))],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_promtool_accepts_the_rules(arguments: tuple[str, ...]) -> None:
    run = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)

    assert run.returncode == 0, run.stdout + run.stderr
