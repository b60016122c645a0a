"""The cost of budgets is measured on a real server; its figures are not judged here."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.budget_cost import BUDGET, LIMITS, NONE, Turn, find_cost, make_table, run


def test_turns_of_all_callers_are_measured(tmp_path: Path) -> None:
    kinds = [NONE, BUDGET, LIMITS]

    rounds = run(tmp_path, kinds, seconds=1, window_s=0.1)

    assert rounds
    for turns in rounds:
        assert len(turns) == len(kinds)
        assert all(0 < turn.loop_us < turn.all_us for turn in turns)
    assert make_table(kinds, rounds).count("\n") == 3 + len(kinds)


def test_cost_compares_the_turns_of_a_round_and_leaves_out_the_extremes() -> None:
    without = [100.0] * 9 + [1.0]
    cost = find_cost([104.0, 106.0] * 4 + [1.0, 100.0], without)

    # 0.01 and 100 times are left out.
    assert cost.ratio == pytest.approx(1.05)
    assert cost.error == pytest.approx(0.0107 / 8**0.5, rel=0.01)


def test_table_has_medians_and_multiples() -> None:
    table = make_table([NONE, BUDGET], [[Turn(100, 120), Turn(103, 126)]] * 3)

    assert table.splitlines()[-1] == "| budget | 103 | 126 | 1.030 ± 0.000 | 1.050 ± 0.000 |"
