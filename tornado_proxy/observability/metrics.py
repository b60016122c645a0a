"""Declares every metric of the server.

The values of a label are a closed set: a label never holds text of a caller.  Names follow Prometheus, "Metric and
label naming".
"""

from __future__ import annotations

import time as clock
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from functools import cache
from typing import TypeVar

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.samples import Exemplar

from tornado_proxy.domain.budgets.warning import THRESHOLDS_PERCENT
from tornado_proxy.domain.record import Outcome

#: Buckets in seconds, from an error response of the proxy to a long reasoning stream.
DURATION_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

_Metric = TypeVar("_Metric", bound=MetricWrapperBase)


@cache  # labels() takes longer than inc() or observe(); label values are closed sets, so the cache stays small
def child(metric: _Metric, *labels: str) -> _Metric:
    """Return the child of `metric` with these label values."""
    return metric.labels(*labels)


class Durations(Histogram):
    """A histogram that is counted by count_request(), and takes the counts when it is read.

    prometheus_client's own observe() takes as long as a log line.  It adds to `_sum` and `_buckets`, as add() does;
    tests/observability/test_metrics.py compares the two.
    """

    def add(self, counts: _Counts) -> None:
        """Add counts to the child of a provider."""
        self._sum.inc(counts.total_s)
        for bucket, number, exemplar in zip(self._buckets, counts.buckets, counts.exemplars, strict=True):
            if number:
                bucket.inc(number)
            if exemplar is not None:
                seconds, request_id = exemplar
                bucket.set_exemplar(Exemplar({"request_id": request_id}, seconds, clock.time()))


class _Counts:
    """The durations of a provider's requests that are not in their histogram yet.

    `buckets` has the number of requests in each bucket, `exemplars` the seconds and the id of the last one.
    """

    __slots__ = ("buckets", "exemplars", "total_s")

    def __init__(self) -> None:
        self.buckets = [0] * (len(DURATION_BUCKETS_S) + 1)
        self.exemplars: list[tuple[float, str] | None] = [None] * len(self.buckets)
        self.total_s = 0.0

    def count(self, seconds: float, request_id: str) -> None:
        bucket = bisect_left(DURATION_BUCKETS_S, seconds)
        self.buckets[bucket] += 1
        self.exemplars[bucket] = seconds, request_id
        self.total_s += seconds


#: Requests that are not counted in REQUESTS, DURATION and FIRST_BYTE yet: by (provider, outcome), and by provider.
_ended: defaultdict[tuple[str, str], int] = defaultdict(int)
_durations: defaultdict[str, _Counts] = defaultdict(_Counts)
_first_bytes: defaultdict[str, _Counts] = defaultdict(_Counts)


def count_request(request_id: str, provider: str, outcome: str, total_s: float, first_byte_s: float | None) -> None:
    """Count an ended request in REQUESTS, DURATION and FIRST_BYTE, which show it when flush() is called.

    Args:
        request_id: Its id, the exemplar of the buckets that it is counted in.
        provider: The provider's name.
        outcome: How it ended, a value of Outcome.
        total_s: Seconds from its start to its end.
        first_byte_s: Seconds from its start to the first byte of the response; None if there was none.
    """
    _ended[provider, outcome] += 1
    _durations[provider].count(total_s, request_id)
    if first_byte_s is not None:
        _first_bytes[provider].count(first_byte_s, request_id)


def flush() -> None:
    """Count the requests that wait for it.  Call this before reading the metrics."""
    for labels, number in _ended.items():
        child(REQUESTS, *labels).inc(number)
    for histogram, waiting in ((DURATION, _durations), (FIRST_BYTE, _first_bytes)):
        for provider, counts in waiting.items():
            child(histogram, provider).add(counts)
        waiting.clear()
    _ended.clear()


def set_pending(counts: Mapping[str, int]) -> None:
    """Set PENDING_REQUESTS from the number of requests in each state."""
    for state, number in counts.items():
        PENDING_REQUESTS.labels(state).set(number)


def show_configuration(generation: int, price_dates: Mapping[str, date], keys: Iterable[tuple[str, str]]) -> None:
    """Show a new configuration.

    Counters that alerts watch begin at 0: a counter that appears with its first event has no increase yet.

    Args:
        generation: Its number.
        price_dates: The day of the oldest price check of each provider.
        keys: (provider, name) of each provider key.
    """
    CONFIG_GENERATION.set(generation)
    for provider, checked in price_dates.items():
        PRICES_CHECKED.labels(provider).set(datetime.combine(checked, time(), UTC).timestamp())
        child(UNPRICED, provider)
        child(UNKNOWN_USAGE, provider)
        for outcome in Outcome:
            child(REQUESTS, provider, str(outcome))
    for provider, name in keys:
        for status in ("401", "429"):
            child(KEYS_SET_ASIDE, provider, name, status)
    for threshold in THRESHOLDS_PERCENT:
        child(BUDGET_WARNINGS, str(threshold))
    for limit in ("drain_max", "drain_limit_s"):
        child(DRAINS_CUT, limit)


REQUESTS = Counter("llm_proxy_requests_total", "Requests sent to a provider, by outcome", ["provider", "outcome"])
REFUSALS = Counter(
    "llm_proxy_refusals_total", "Requests rejected before anything was sent to a provider, by error code", ["code"]
)
IN_FLIGHT = Gauge("llm_proxy_requests_in_flight", "Requests in flight")
ARRIVING_BYTES = Gauge("llm_proxy_arriving_bytes", "Bytes held for requests and messages that have not arrived in full")
DRAINS = Gauge("llm_proxy_drains", "Responses that are read to their end after their clients disconnected")
DRAINS_CUT = Counter(
    "llm_proxy_drains_cut_total",
    "Responses that were not drained to their end, by the limit that was reached",
    ["limit"],
)
FIRST_BYTE = Durations(
    "llm_proxy_first_byte_seconds",
    "Seconds from the request to the first byte of the provider's response",
    ["provider"],
    buckets=DURATION_BUCKETS_S,
)
DURATION = Durations(
    "llm_proxy_request_seconds",
    "Seconds from the request to the end of its response",
    ["provider"],
    buckets=DURATION_BUCKETS_S,
)
UNKNOWN_USAGE = Counter(
    "llm_proxy_unknown_usage_total", "Counts in usage whose names this version does not know", ["provider"]
)
UNPRICED = Counter("llm_proxy_unpriced_total", "Records with an unknown cost (basis unsettled)", ["provider"])
PENDING_REQUESTS = Gauge(
    "llm_proxy_pending_requests", "Requests whose usage the provider reports later, by why it is not known", ["state"]
)
KEYS_SET_ASIDE = Counter(
    "llm_proxy_provider_keys_set_aside_total",
    "Times that a provider key was set aside after the provider's status 401 or 429",
    ["provider", "provider_key", "status"],
)
PRICES_CHECKED = Gauge(
    "llm_proxy_prices_checked_timestamp_seconds",
    "Day on which the price that was not checked for the longest time was checked",
    ["provider"],
)
READER_FAILURES = Counter("llm_proxy_reader_failures_total", "Usage readers that failed; their responses were relayed")
TASK_FAILURES = Counter("llm_proxy_task_failures_total", "Background tasks that failed", ["task"])
LEDGER_HEALTHY = Gauge("llm_proxy_ledger_healthy", "1 if the ledger can be written, 0 while new requests get 503")
BUDGETS_HEALTHY = Gauge(
    "llm_proxy_budgets_healthy", "1 if the budgets can be written, 0 while requests with a budget or a limit get 503"
)
BUDGETS_HEALTHY.set(1)  # until they fail; nothing is written while no project has a budget
LEDGER_PENDING = Gauge("llm_proxy_ledger_pending", "Ledger writes that wait for a commit")
BUDGET_DIFFERENCE = Gauge(
    "llm_proxy_budget_difference_usd", "USD by which budget counters differed from the ledger when last compared"
)
BUDGET_WARNINGS = Counter(
    "llm_proxy_budget_warnings_total", "Budgets that have reached a threshold of their limit", ["threshold_percent"]
)
ALERTS = Counter("llm_proxy_alerts_total", "Attempts to tell a webhook of an alert", ["webhook", "result"])
BRAKE_STOPS = Counter("llm_proxy_brake_stops_total", "Stops made because more was spent in a minute than allowed")
STOP_CANCELLATIONS = Counter(
    "llm_proxy_stop_cancellations_total", "Attempts to cancel the background work of a stopped caller", ["result"]
)
_BUDGET_LABELS = ["project_id", "per", "label", "period", "of", "start"]
BUDGET_SPENT = Gauge("llm_proxy_budget_spent_usd", "USD spent of a budget in its current period", _BUDGET_LABELS)
BUDGET_LIMIT = Gauge("llm_proxy_budget_limit_usd", "USD that a budget limits its current period to", _BUDGET_LABELS)
CONFIG_GENERATION = Gauge("llm_proxy_config_generation", "Generation of the active configuration")
STATE_GENERATION = Gauge("llm_proxy_state_generation", "Number of the last change of the state that is in effect here")
STATE_READ_FAILURES = Counter("llm_proxy_state_read_failures_total", "Polls that could not read the state")
IDENTITY_PROVIDER_REQUESTS = Counter(
    "llm_proxy_identity_provider_requests_total",
    "Requests to OAuth issuers, for their keys or about opaque tokens",
    ["purpose", "outcome"],
)
CONFIG_RELOAD_FAILED = Gauge("llm_proxy_config_reload_failed", "1 if the last reload failed")
OTLP_REQUESTS = Counter("llm_proxy_otlp_requests_total", "Requests whose spans and metrics the OTLP receiver has taken")
OTLP_FAILING = Gauge("llm_proxy_otlp_failing", "1 while the OTLP receiver does not take spans and metrics")
LOG_LINES_LOST = Counter("llm_proxy_log_lines_lost_total", "Log lines that could not be written", ["output"])
