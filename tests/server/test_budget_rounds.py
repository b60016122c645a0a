"""Servers on two nodes that are killed while they share a budget; tests/server/budget_rounds.py has the long form."""

from __future__ import annotations

from pathlib import Path

from tests.postgres_server import PostgresServer
from tests.replay_provider import ReplayProvider
from tests.server.budget_rounds import running_rounds
from tests.server.test_budgets import OFTEN


def test_killed_server_of_two_nodes_overspends_nothing_and_leaves_nothing_reserved(
    provider: ReplayProvider, postgres: PostgresServer, tmp_path: Path
) -> None:
    with running_rounds(tmp_path, provider, postgres.new_database(), strict=False, constants=OFTEN) as rounds:
        rounds.run(0, kill=True)
        rounds.check_counters()
