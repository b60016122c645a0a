"""Makes alerts of events, and the messages that webhooks get.  Pure functions.

Docs: alerts.md lists the members.
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta

from tornado_proxy.domain.alert import Alert, AlertType
from tornado_proxy.domain.budgets.brake import Brake
from tornado_proxy.domain.budgets.counter import encode_kind
from tornado_proxy.domain.budgets.warning import BudgetWarning
from tornado_proxy.domain.stop import Stop
from tornado_proxy.key_rotation import KeySetAside
from tornado_proxy.ledger.rows import format_time
from tornado_proxy.state.alert_table import AlertMessage

#: Random bytes of a message's id.
_ID_BYTES = 16

#: How long a key is kept after its period: messages are sent for at most a day.
_KEPT = timedelta(days=2)

_HOUR = timedelta(hours=1)


def make_budget_alert(warning: BudgetWarning, project: str | None, at: datetime) -> Alert:
    """Return the alert of a threshold that a budget has reached; `project` is the project's name."""
    counter = warning.counter
    begin, end = counter.interval.begin, counter.interval.end
    limit = f"{warning.limit.normalize():f}"
    key = json.dumps(
        [
            AlertType.BUDGET,
            encode_kind(counter.kind),
            counter.project_id,
            counter.subject,
            format_time(begin),
            limit,
            warning.threshold,
        ]
    )
    data = {
        "project_id": counter.project_id,
        "project": project,
        "per": counter.kind.scope.value,
        "label": counter.kind.label,
        "subject": counter.subject or None,
        "period": counter.kind.period.value,
        "start": format_time(begin),
        "end": None if end is None else format_time(end),
        "threshold_percent": warning.threshold,
        "limit_usd": f"{warning.limit:f}",
        "settled_usd": f"{counter.settled:f}",
    }
    return Alert(AlertType.BUDGET, key, at, None if end is None else end + _KEPT, data)


def make_brake_alert(brake: Brake, stop: Stop, project: str | None) -> Alert:
    """Return the alert of a stop that the spend brake has made; `project` is the project's name."""
    data = {
        "project_id": brake.project_id,
        "project": project,
        "participant": brake.participant,
        "stop": stop.id,
        "spent_usd": f"{brake.spent:f}",
        "limit_usd": f"{brake.limit:f}",
    }
    at = stop.created_at
    return Alert(AlertType.BRAKE, f"{AlertType.BRAKE} {stop.id}", at, at + _KEPT, data)


def make_unsettled_alert(count: int, limit: int, hour: datetime, at: datetime) -> Alert:
    """Return the alert of `count` requests that began in an hour and whose cost is not known."""
    data = {"requests": count, "unsettled_per_hour": limit, "start": format_time(hour)}
    key = f"{AlertType.UNSETTLED} {format_time(hour)}"
    return Alert(AlertType.UNSETTLED, key, at, hour + _HOUR + _KEPT, data)


def make_key_alert(aside: KeySetAside, at: datetime) -> Alert:
    """Return the alert of a provider key that was set aside: one in an hour for each key and status."""
    hour = at.replace(minute=0, second=0, microsecond=0)
    data = {
        "provider": aside.provider,
        "provider_key": aside.key.name,
        "own_key": aside.key.own,
        "status": aside.status,
        "seconds": aside.seconds,
    }
    key = f"{AlertType.PROVIDER_KEY} {aside.provider} {aside.key.fingerprint} {aside.status} {format_time(hour)}"
    return Alert(AlertType.PROVIDER_KEY, key, at, hour + _HOUR + _KEPT, data)


def make_test_alert(at: datetime) -> Alert:
    """Return the alert of `alerts test`."""
    data = {"text": "a test of tornado-proxy; nothing has happened"}
    return Alert(AlertType.TEST, f"{AlertType.TEST} {format_time(at)}", at, at, data)


def make_message(alert: Alert, webhook: str) -> AlertMessage:
    """Return the message of an alert to a webhook, with a new id."""
    content = {"type": alert.type.value, "timestamp": format_time(alert.at), "data": alert.data}
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return AlertMessage(webhook, alert.key, f"msg_{os.urandom(_ID_BYTES).hex()}", body, 0, alert.at)
