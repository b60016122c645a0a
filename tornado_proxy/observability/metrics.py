"""Declares every metric of the server.

The values of a label are a closed set: a label never holds text of a caller.  Names follow Prometheus, "Metric and
label naming".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import cache
from typing import TypeVar

from prometheus_client import Counter, Gauge, Histogram

from tornado_proxy.domain.budget import THRESHOLDS_PERCENT
from tornado_proxy.domain.record import Outcome

_Metric = TypeVar("_Metric", Counter, Histogram)


@cache  # labels() takes longer than inc() or observe(); label values are closed sets, so the cache stays small
def child(metric: _Metric, *labels: str) -> _Metric:
    """Return the child of `metric` with these label values."""
    return metric.labels(*labels)


@dataclass(frozen=True, slots=True)
class EndedRequest:
    """A request to count.

    Attributes:
        request_id: Its id, the exemplar of the buckets that it is counted in.
        provider: The provider's name.
        outcome: How it ended, a value of Outcome.
        total_s: Seconds from its start to its end.
        first_byte_s: Seconds from its start to the first byte of the response; None if there was none.
    """

    request_id: str
    provider: str
    outcome: str
    total_s: float
    first_byte_s: float | None


#: Ended requests that are not counted yet.  Counting one request takes prometheus_client as long as its log line takes;
#: in a batch each takes a third of that.
_ended: list[EndedRequest] = []
#: Requests in a batch; counting 500 at once blocks the event loop for a few milliseconds.
_MAX_ENDED = 500


def count_request(request: EndedRequest) -> None:
    """Count an ended request in REQUESTS, DURATION and FIRST_BYTE, at the latest when flush() is called."""
    _ended.append(request)
    if len(_ended) >= _MAX_ENDED:
        flush()


def flush() -> None:
    """Count the requests that wait for it.  Call this before reading the metrics."""
    for request in _ended:
        child(REQUESTS, request.provider, request.outcome).inc()
    _observe(DURATION, [(request.provider, request.total_s, request.request_id) for request in _ended])
    _observe(
        FIRST_BYTE,
        [
            (request.provider, request.first_byte_s, request.request_id)
            for request in _ended
            if request.first_byte_s is not None
        ],
    )
    _ended.clear()


def _observe(histogram: Histogram, values: Sequence[tuple[str, float, str]]) -> None:
    """Observe (provider, seconds, request id)s; the last one of each bucket is its exemplar."""
    # An exemplar takes longer than the rest, and a later one in the same bucket replaces it.
    last = {
        (provider, bisect_left(_DURATION_BUCKETS_S, seconds)): at for at, (provider, seconds, _) in enumerate(values)
    }
    exemplars = frozenset(last.values())
    for at, (provider, seconds, request_id) in enumerate(values):
        exemplar = {"request_id": request_id} if at in exemplars else None
        child(histogram, provider).observe(seconds, exemplar)


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
        for outcome in Outcome:
            child(REQUESTS, provider, str(outcome))
    for provider, name in keys:
        for status in ("401", "429"):
            child(KEYS_SET_ASIDE, provider, name, status)
    for threshold in THRESHOLDS_PERCENT:
        child(BUDGET_WARNINGS, str(threshold))
    for limit in ("drain_max", "drain_limit_s"):
        child(DRAINS_CUT, limit)


#: Buckets in seconds, from an error response of the proxy to a long reasoning stream.
_DURATION_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

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
FIRST_BYTE = Histogram(
    "llm_proxy_first_byte_seconds",
    "Seconds from the request to the first byte of the provider's response",
    ["provider"],
    buckets=_DURATION_BUCKETS_S,
)
DURATION = Histogram(
    "llm_proxy_request_seconds",
    "Seconds from the request to the end of its response",
    ["provider"],
    buckets=_DURATION_BUCKETS_S,
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
LEDGER_PENDING = Gauge("llm_proxy_ledger_pending", "Ledger writes that wait for a commit")
BUDGET_DIFFERENCE = Gauge(
    "llm_proxy_budget_difference_usd", "USD by which budget counters differed from the ledger when last compared"
)
BUDGET_WARNINGS = Counter(
    "llm_proxy_budget_warnings_total", "Budgets that have reached a threshold of their limit", ["threshold_percent"]
)
ALERTS = Counter("llm_proxy_alerts_total", "Attempts to tell a webhook of an alert", ["webhook", "result"])
BRAKE_STOPS = Counter("llm_proxy_brake_stops_total", "Stops made because more was spent in a minute than allowed")
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
