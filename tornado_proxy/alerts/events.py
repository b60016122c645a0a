"""Tells the webhooks of what happens in this process: thresholds of budgets, spend brakes, keys that are set aside."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from tornado_proxy.alerts.messages import make_brake_alert, make_budget_alert, make_key_alert
from tornado_proxy.alerts.sender import AlertSender
from tornado_proxy.domain.budgets.brake import Brake
from tornado_proxy.domain.budgets.warning import BudgetWarning
from tornado_proxy.domain.stop import Stop
from tornado_proxy.key_rotation import KeySetAside
from tornado_proxy.snapshot import SnapshotHolder


class AlertEvents:
    """Makes the alert of each event, with the name of its project, and has it sent.  Never blocks."""

    def __init__(self, sender: AlertSender, snapshots: SnapshotHolder) -> None:
        self._sender = sender
        self._snapshots = snapshots

    def budget_warning(self, warning: BudgetWarning, on_stored: Callable[[], None]) -> None:
        """Tell of a threshold that a budget has reached; `on_stored` is called when the alert is stored or dropped."""
        project = self._find_project_name(warning.counter.project_id)
        self._sender.tell(make_budget_alert(warning, project, datetime.now(UTC)), on_stored)

    def spend_brake(self, brake: Brake, stop: Stop, on_stored: Callable[[], None]) -> None:
        """Tell of a stop that a spend brake has made; `on_stored` is called when the alert is stored or dropped."""
        self._sender.tell(make_brake_alert(brake, stop, self._find_project_name(brake.project_id)), on_stored)

    def key_set_aside(self, aside: KeySetAside) -> None:
        """Tell of a provider key that is not used for a time."""
        self._sender.tell(make_key_alert(aside, datetime.now(UTC)))

    def _find_project_name(self, project_id: str) -> str | None:
        project = self._snapshots.current.projects.get(project_id)
        return None if project is None else project.name
