"""The benchmark of the dashboard measures both local proxies; its figures are not judged here."""

from __future__ import annotations

from pathlib import Path

import uvloop

from bench.dashboard import DASHBOARD, DIRECT, LINES, Load, find_ratio, make_table, measure_all


def test_gaps_are_measured_with_and_without_the_dashboard(tmp_path: Path) -> None:
    results = uvloop.run(measure_all(tmp_path, 1, Load(streams=2, gap_us=20_000, seconds=1)))

    assert set(results) == {DIRECT, LINES, DASHBOARD}
    (lines,), (dashboard,) = results[LINES], results[DASHBOARD]
    # Not below the pacing, nor half of the second.
    assert 15 < lines.p50_ms < 500
    assert 15 < dashboard.p50_ms < 500
    assert find_ratio(results) == dashboard.p99_ms / lines.p99_ms
    assert make_table(results).count("\n") == 4
