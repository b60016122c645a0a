"""What messages say, and which events are the same event."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tornado_proxy.alerts import messages
from tornado_proxy.domain.alert import Alert
from tornado_proxy.domain.budgets.brake import Brake
from tornado_proxy.domain.budgets.counter import CounterKind, CounterState, Interval, Period, Scope
from tornado_proxy.domain.budgets.warning import BudgetWarning
from tornado_proxy.domain.identity import KeyId
from tornado_proxy.domain.stop import Stop, StopTarget
from tornado_proxy.key_rotation import KeySetAside

NOW = datetime(2026, 11, 28, 12, 34, 56, tzinfo=UTC)
HOUR = datetime(2026, 11, 28, 12, tzinfo=UTC)
MONTH = Interval(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
ASIDE = KeySetAside("openai", KeyId("main", "f1"), 401, 60.0)


def warn(threshold: int = 80, limit: str = "500", interval: Interval = MONTH) -> Alert:
    kind = CounterKind(Scope.PARTICIPANT, Period.MONTH)
    counter = CounterState(kind, "p1", "participant ada", interval, Decimal("410.5"), Decimal(0))
    return messages.make_budget_alert(BudgetWarning(counter, Decimal(limit), threshold), "Acme", NOW)


def read(alert: Alert) -> object:
    return json.loads(messages.make_message(alert, "ops").body)


def test_budget_alert_says_whose_budget_and_how_much_of_it_is_spent() -> None:
    assert read(warn()) == {
        "type": "budget.threshold_reached",
        "timestamp": "2026-11-28T12:34:56.000Z",
        "data": {
            "project_id": "p1",
            "project": "Acme",
            "per": "participant",
            "label": None,
            "subject": "participant ada",
            "period": "month",
            "start": "2026-11-01T00:00:00.000Z",
            "end": "2026-12-01T00:00:00.000Z",
            "threshold_percent": 80,
            "limit_usd": "500",
            "settled_usd": "410.5",
        },
    }
    assert warn().forget_at == datetime(2026, 12, 3, tzinfo=UTC)


def test_budget_alert_is_the_same_for_equal_limits_and_another_one_for_a_threshold_limit_or_period() -> None:
    december = Interval(datetime(2026, 12, 1, tzinfo=UTC), None)

    assert warn(limit="500.00").key == warn().key
    assert len({warn().key, warn(100).key, warn(limit="600").key, warn(interval=december).key}) == 4
    assert warn(interval=december).forget_at is None


def test_brake_alert_names_the_stop_that_resume_lifts() -> None:
    stop = Stop("stop_1", StopTarget("p1", "ada"), "spend brake", NOW)
    brake = Brake("1", "p1", "ada", Decimal("6.25"), Decimal(5))

    assert read(messages.make_brake_alert(brake, stop, "Acme")) == {
        "type": "spend_brake.applied",
        "timestamp": "2026-11-28T12:34:56.000Z",
        "data": {
            "project_id": "p1",
            "project": "Acme",
            "participant": "ada",
            "stop": "stop_1",
            "spent_usd": "6.25",
            "limit_usd": "5",
        },
    }


def test_unsettled_alert_is_one_in_an_hour() -> None:
    alert = messages.make_unsettled_alert(12, 10, HOUR, NOW)

    assert read(alert) == {
        "type": "requests.unsettled",
        "timestamp": "2026-11-28T12:34:56.000Z",
        "data": {"requests": 12, "unsettled_per_hour": 10, "start": "2026-11-28T12:00:00.000Z"},
    }
    assert messages.make_unsettled_alert(50, 10, HOUR, NOW + timedelta(minutes=26)).key == alert.key
    assert messages.make_unsettled_alert(50, 10, HOUR + timedelta(hours=1), NOW).key != alert.key


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        (KeySetAside("openai", KeyId("renamed", "f1"), 401, 30.0), True),
        (KeySetAside("openai", KeyId("main", "f2"), 401, 60.0), False),
        (KeySetAside("openai", KeyId("main", "f1"), 429, 60.0), False),
        (KeySetAside("anthropic", KeyId("main", "f1"), 401, 60.0), False),
    ],
)
def test_key_alert_is_one_in_an_hour_for_each_key_and_status(other: KeySetAside, is_same: bool) -> None:
    alert = messages.make_key_alert(ASIDE, NOW)

    assert (messages.make_key_alert(other, NOW).key == alert.key) is is_same
    assert messages.make_key_alert(ASIDE, NOW + timedelta(hours=1)).key != alert.key
    assert alert.data == {
        "provider": "openai",
        "provider_key": "main",
        "own_key": False,
        "status": 401,
        "seconds": 60.0,
    }
