"""Alerts of real servers: budget, brake, provider key and unknown costs, each once for two processes and a restart."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.alerts.receiver import SECRET, Receiver, running_receiver
from tests.harness import PROJECT, ProxyProcess, wait_until
from tests.replay_provider import ProviderResponse, ReplayProvider
from tests.server.test_budgets import RESPONSE, post, project
from tests.server.test_compressed_responses import compressed_response
from tests.server.test_rate_limits import two_processes
from tests.server.test_stops import wait_for_status
from tornado_proxy.domain.alert import AlertType

#: Seconds between two looks for new messages; the server looks for unknown costs every half second.
_POLL_S = 0.2
OFTEN = {"tornado_proxy.alerts.sender._MINUTE_S": 0.5, "tornado_proxy.alerts.sender._POLL_S": _POLL_S}


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("KEY_SECOND", "sk-second-0123456789")


def configure(receiver: Receiver, url: str) -> dict[str, Any]:
    """Return a configuration that sends alerts to `receiver`, with all that can be an alert."""
    webhook = {"name": "ops", "url": receiver.url, "secret": {"env": "TEST_WEBHOOK_SECRET"}}
    keys = [
        {"name": "main", "secret": {"env": "TEST_OPENAI_KEY"}},
        {"name": "second", "secret": {"env": "KEY_SECOND"}},
    ]
    return {
        "alerts": {"webhooks": [webhook], "unsettled_per_hour": 2},
        "providers": {"openai": {"base_url": url, "keys": keys}},
        # A request costs 0.0006363 USD.
        "projects": [
            project(
                budgets=[{"period": "total", "usd": "0.0024", "per": "participant"}],
                limits={"per_participant": {"usd_per_minute": "0.0015"}},
            )
        ],
        "constants": OFTEN,
    }


@contextlib.contextmanager
def running(receiver: Receiver, url: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    with two_processes("sqlite", folder, url, request, **configure(receiver, url)) as two:
        yield two


def test_each_event_reaches_the_webhook_once_over_two_processes_and_a_restart(
    provider: ReplayProvider, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # Within one hour: each hour has alerts of its own.
    wait_until(lambda: datetime.now(UTC).minute < 59 or datetime.now(UTC).second < 30, "the next hour")
    with running_receiver() as receiver:
        with running(receiver, provider.url, tmp_path, request) as two:
            cause_alerts(two, provider)
            wait_until(lambda: len(set(receiver.list_types())) == 4, f"all types: {receiver.list_types()}")
        with running(receiver, provider.url, tmp_path, request) as two:
            provider.response = ProviderResponse(status=401, chunks=(b"{}",))
            for proxy in (*two, *two):
                post(proxy, "bob")
            time.sleep(4 * _POLL_S)  # a second message would come within a poll or two

    (brake,) = receiver.find(AlertType.BRAKE)
    assert (brake["project_id"], brake["participant"], brake["limit_usd"]) == (PROJECT, "ada", "0.0015")
    assert Decimal(brake["spent_usd"]) > Decimal("0.0015")
    budgets = receiver.find(AlertType.BUDGET)
    thresholds = [budget["threshold_percent"] for budget in budgets]
    assert len(thresholds) == len(set(thresholds)) > 0
    assert {budget["subject"] for budget in budgets} == {"participant ada"}
    (unsettled,) = receiver.find(AlertType.UNSETTLED)
    assert unsettled["requests"] >= 2
    keys = receiver.find(AlertType.PROVIDER_KEY)
    assert sorted(key["provider_key"] for key in keys) == sorted({key["provider_key"] for key in keys})
    assert {key["status"] for key in keys} == {401}
    text = json.dumps(receiver.messages)
    assert "sk-" not in text
    assert "whsec" not in text


def cause_alerts(two: tuple[ProxyProcess, ProxyProcess], provider: ReplayProvider) -> None:
    """Pass the brake, and with it a budget's threshold; leave two requests without usage; let a key be rejected."""
    provider.response = ProviderResponse(chunks=(RESPONSE,))
    for proxy in (*two, two[0]):
        assert post(proxy, "ada").status_code == 200
    wait_for_status(two[1], "ada", 403)
    provider.response = compressed_response("application/json", RESPONSE)  # it cannot be metered
    for proxy in two:
        assert post(proxy, "eve").status_code == 200
    provider.response = ProviderResponse(status=401, chunks=(b"{}",))
    for proxy in (*two, *two):
        assert post(proxy, "bob").status_code == 401
