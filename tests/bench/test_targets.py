"""Targets compare medians, and ratios within one run."""

from __future__ import annotations

import pytest

from bench.targets import Target

RESULTS = {
    "json-32": {
        "tornado-proxy": {"requests_per_s": [90.0, 4000.0, 4100.0]},
        "nginx": {"requests_per_s": [50_000.0, 40_000.0, 1.0]},
    },
    "json-budget": {
        "tornado-proxy": {"cpu_us": [250.0, 200.0, 300.0]},
        "tornado-proxy-budget": {"cpu_us": [260.0, 200.0, 290.0]},
    },
    "stall": {"tornado-proxy": {"grown_mb": [0.7, 0.9, 12.0]}},
}


@pytest.mark.parametrize(
    ("target", "value", "verdict"),
    [
        (Target("json-32", "requests_per_s", 0.06, 0.10, against="nginx", higher_is_better=True), 0.1, "stretch"),
        (Target("json-32", "requests_per_s", 0.06, 0.20, against="nginx", higher_is_better=True), 0.1, "met"),
        (Target("json-32", "requests_per_s", 0.11, against="nginx", higher_is_better=True), 0.1, "missed"),
        (Target("stall", "grown_mb", 2, 1), 0.9, "stretch"),
        (Target("stall", "grown_mb", 0.8), 0.9, "missed"),
        (Target("json-budget", "cpu_us", 1.05, against="tornado-proxy", of="tornado-proxy-budget"), 1.04, "met"),
    ],
)
def test_target_is_judged_by_the_median_of_its_rounds(target: Target, value: float, verdict: str) -> None:
    measured = target.find_value(RESULTS)
    assert measured == value
    assert target.judge(measured) == verdict


@pytest.mark.parametrize(
    "target",
    [Target("abort", "p99_ms", 10), Target("json-32", "requests_per_s", 30, against="litellm", higher_is_better=True)],
)
def test_target_without_a_measurement_is_not_judged(target: Target) -> None:
    assert target.find_value(RESULTS) is None
