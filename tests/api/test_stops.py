"""The JSON documents of stops."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tornado_proxy.api.stops import read_stop, show_stops
from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.domain.stop import Stop, StopTarget


def test_document_names_target_and_reason() -> None:
    body = b'{"project_id": "p", "agent_session": "s", "reason": "runaway"}'
    assert read_stop(body) == (StopTarget("p", agent_session="s"), "runaway")
    assert read_stop(b"{}") == (StopTarget(), "")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"user": "ada"}', b'{"participant": 1}', b"\xff"])
def test_other_document_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidBody):
        read_stop(body)


def test_stop_is_shown_with_all_its_members() -> None:
    stop = Stop("stop_1", StopTarget(participant="ada"), "cli:root", datetime(2026, 11, 28, 9, 0, tzinfo=UTC), "why")
    assert show_stops([stop]) == {
        "stops": [
            {
                "id": "stop_1",
                "project_id": None,
                "participant": "ada",
                "agent_session": None,
                "reason": "why",
                "actor": "cli:root",
                "created_at": "2026-11-28T09:00:00.000Z",
            }
        ]
    }
