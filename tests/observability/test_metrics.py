"""Requests are counted in batches, and the histograms show them as prometheus_client's own would."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.samples import Sample

from tornado_proxy.observability import metrics

#: (seconds to the end, seconds to the first byte) of some requests; both ends of a bucket are among them.
DURATIONS = [(0.0004, None), (0.001, 0.0005), (0.0011, 0.001), (0.3, 0.02), (299.0, 4.0), (300.0, 4.0), (301.0, 60.0)]


def read_samples(histogram: Histogram, provider: str) -> list[Sample]:
    (family,) = histogram.collect()
    return [sample for sample in family.samples if sample.labels["provider"] == provider]


@pytest.mark.parametrize("position", [0, 1], ids=["whole request", "first byte"])
def test_histograms_show_what_observing_each_request_shows(position: int) -> None:
    provider = f"provider of {position}"
    ours = (metrics.DURATION, metrics.FIRST_BYTE)[position]
    reference = Histogram(
        ours._name, "reference", ["provider"], registry=CollectorRegistry(), buckets=metrics.DURATION_BUCKETS_S
    )
    for number, durations in enumerate(DURATIONS * 2):
        metrics.count_request(f"req_{number}", provider, "completed", *durations)
        seconds = durations[position]
        if seconds is not None:
            reference.labels(provider).observe(seconds, {"request_id": f"req_{number}"})

    metrics.flush()

    shown, expected = read_samples(ours, provider), read_samples(reference, provider)
    for sample, other in zip(shown, expected, strict=True):
        if sample.name.endswith("_created"):
            continue
        assert (sample.name, sample.labels) == (other.name, other.labels)
        assert sample.value == pytest.approx(other.value)
        assert (sample.exemplar is None) == (other.exemplar is None)
        if sample.exemplar is not None and other.exemplar is not None:
            assert (sample.exemplar.labels, sample.exemplar.value) == (other.exemplar.labels, other.exemplar.value)


def test_each_outcome_is_counted_once_however_often_the_counts_are_read() -> None:
    for outcome in ("completed", "completed", "client_closed"):
        metrics.count_request("req_1", "counted provider", outcome, 0.1, None)

    metrics.flush()
    metrics.flush()

    (family,) = metrics.REQUESTS.collect()
    counts = {
        sample.labels["outcome"]: sample.value
        for sample in family.samples
        if sample.labels["provider"] == "counted provider" and sample.name.endswith("_total")
    }
    assert counts == {"completed": 2, "client_closed": 1}
