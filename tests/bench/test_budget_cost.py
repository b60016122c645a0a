"""The cost of budgets is measured on a real server; its figures are not judged here."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.budget_cost import BUDGET, LIMITS, NONE, Turn, find_cost, make_table, run_callers, run_pairs


def test_turns_of_all_callers_are_measured(tmp_path: Path) -> None:
    kinds = [NONE, BUDGET, LIMITS]

    rounds = run_callers(tmp_path, kinds, seconds=1, window_s=0.1)

    assert rounds
    for turns in rounds:
        assert len(turns) == len(kinds)
        assert all(0 < turn.loop_us < turn.all_us for turn in turns)
    assert make_table(kinds, rounds).count("\n") == 3 + len(kinds)


def test_servers_with_and_without_budgets_are_measured(tmp_path: Path) -> None:
    ((without, with_budget),) = run_pairs(tmp_path, pairs=1, seconds=0.5, window_s=0.1)

    assert 0 < without.loop_us < without.all_us
    assert 0 < with_budget.loop_us < with_budget.all_us


def test_cost_compares_the_turns_of_a_round_and_leaves_out_the_extremes() -> None:
    without = [100.0] * 9 + [1.0]
    cost = find_cost([104.0, 106.0] * 4 + [1.0, 100.0], without)

    # 0.01 and 100 times are left out, and count as 1.04 and 1.06 in the error: the deviation of ten ratios is 0.01054.
    assert cost.ratio == pytest.approx(1.05)
    assert cost.error == pytest.approx(0.01054 * 10**0.5 / 8, rel=0.001)


def test_table_has_medians_and_multiples() -> None:
    table = make_table([NONE, BUDGET], [[Turn(100, 120), Turn(103, 126)]] * 3)

    assert table.splitlines()[-1] == "| budget | 103 | 126 | 1.030 ± 0.000 | 1.050 ± 0.000 |"
