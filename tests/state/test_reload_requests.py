from __future__ import annotations

from datetime import UTC, datetime

from tornado_proxy.domain.state import StateChange
from tornado_proxy.state.reload_requests import ACTION, find_foreign, make_id


def change(action: str, subject: str) -> StateChange:
    return StateChange(1, datetime(2026, 11, 1, tzinfo=UTC), "admin", action, subject)


def test_process_reloads_for_requests_of_others_only() -> None:
    own = {"reload_a", "reload_b"}

    assert not find_foreign([change(ACTION, "reload_a"), change("access key created", "reload_c")], own)
    assert own == {"reload_b"}
    assert find_foreign([change(ACTION, "reload_b"), change(ACTION, "reload_c")], own)
    assert own == set()
    assert not find_foreign([], own)


def test_ids_of_requests_differ() -> None:
    assert len({make_id() for _ in range(100)}) == 100
