"""Alerts as values: an event that a program of the operator is told about, once in its period."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class AlertType(StrEnum):
    """What an alert tells: the member `type` of its message."""

    BUDGET = "budget.threshold_reached"
    BRAKE = "spend_brake.applied"
    UNSETTLED = "requests.unsettled"
    PROVIDER_KEY = "provider_key.set_aside"
    TEST = "alert.test"


#: The types that a webhook can choose from; every webhook gets a test.
CHOSEN_TYPES = tuple(kind for kind in AlertType if kind is not AlertType.TEST)


@dataclass(frozen=True, slots=True)
class Alert:
    """An event.

    Attributes:
        key: Names the event in its period: further alerts with the same key are not sent.
        at: When it happened, aware UTC.
        forget_at: When the key may be forgotten, aware UTC, because its period is over; None if it has no end.
        data: The member `data` of the message: text, numbers, true, false and null.
    """

    type: AlertType
    key: str
    at: datetime
    forget_at: datetime | None
    data: Mapping[str, object]
