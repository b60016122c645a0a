"""Every metric of the server, declared once.  Labels are closed sets: never a caller's text, never a secret.

Source of the naming rules: Prometheus, "Metric and label naming".
"""

from __future__ import annotations

from functools import cache
from typing import TypeVar

from prometheus_client import Counter, Gauge, Histogram

_Metric = TypeVar("_Metric", Counter, Histogram)


@cache  # finding a child takes longer than counting on it; labels are closed sets, so this stays small
def child(metric: _Metric, *labels: str) -> _Metric:
    """The one of `metric`'s children that counts for `labels`."""
    return metric.labels(*labels)


#: Ended calls that are not counted yet, and how many there may be.  Counting one takes the library as long as making
#: its log line; many in a row cost it a third of that each.
_ended: list[tuple[str, str, float, float | None]] = []
_MAX_ENDED = 500


def count_request(provider: str, outcome: str, total_s: float, first_byte_s: float | None) -> None:
    """Count a call, in REQUESTS, DURATION and FIRST_BYTE, before the next look at them."""
    _ended.append((provider, outcome, total_s, first_byte_s))
    if len(_ended) >= _MAX_ENDED:
        flush()


def flush() -> None:
    """Count what waits; whoever shows the metrics calls this first."""
    for provider, outcome, total_s, first_byte_s in _ended:
        child(REQUESTS, provider, outcome).inc()
        child(DURATION, provider).observe(total_s)
        if first_byte_s is not None:
            child(FIRST_BYTE, provider).observe(first_byte_s)
    _ended.clear()


#: Seconds.  From a refusal on the loop to a long reasoning stream.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

REQUESTS = Counter(
    "llm_proxy_requests_total", "Requests that were sent to a provider, by how they ended", ["provider", "outcome"]
)
REFUSALS = Counter("llm_proxy_refusals_total", "Requests that were turned away before anything was sent", ["code"])
IN_FLIGHT = Gauge("llm_proxy_requests_in_flight", "Requests that are being relayed now")
DRAINS = Gauge("llm_proxy_drains", "Answers that are read to their end without their clients, which have gone")
FIRST_BYTE = Histogram(
    "llm_proxy_first_byte_seconds",
    "From the request to the provider's first answer byte",
    ["provider"],
    buckets=_SECONDS,
)
DURATION = Histogram(
    "llm_proxy_request_seconds", "From the request to the end of its answer", ["provider"], buckets=_SECONDS
)
UNPRICED = Counter("llm_proxy_unpriced_total", "Records whose cost is not known (basis unsettled)", ["provider"])
READER_FAILURES = Counter("llm_proxy_reader_failures_total", "Usage readers that failed; their streams went on")
TASK_FAILURES = Counter("llm_proxy_task_failures_total", "Background tasks that failed", ["task"])
LEDGER_HEALTHY = Gauge("llm_proxy_ledger_healthy", "1 while the ledger takes writes, 0 while new requests get 503")
LEDGER_PENDING = Gauge("llm_proxy_ledger_pending", "Ledger writes that wait for their commit")
CONFIG_GENERATION = Gauge("llm_proxy_config_generation", "Generation of the configuration in use")
CONFIG_RELOAD_FAILED = Gauge("llm_proxy_config_reload_failed", "1 when the last reload was refused")
