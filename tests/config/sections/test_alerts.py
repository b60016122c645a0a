"""The section `alerts`: webhooks with secrets, and faults that repeat neither a URL nor a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.harness import SECRETS, write_config
from tornado_proxy.config.loading import load_settings, read_config
from tornado_proxy.config.sections.alerts import AlertSettings
from tornado_proxy.domain.alert import CHOSEN_TYPES, AlertType

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
WEBHOOK = {"name": "ops", "url": "https://hooks.example.com/T0/B0?x=1", "secret": {"env": "TEST_WEBHOOK_SECRET"}}


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SECRETS, "TEST_WEBHOOK_SECRET": SECRET, "TEST_SHORT": "whsec_YWJj"}.items():
        monkeypatch.setenv(name, value)


def write(folder: Path, **alerts: Any) -> Path:
    return write_config(folder, "http://127.0.0.1:1", alerts=alerts)


def test_webhook_is_read_with_its_secret_and_gets_all_types_by_default(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, webhooks=[WEBHOOK], unsettled_per_hour=3)).settings

    (webhook,) = settings.alerts.webhooks
    assert (webhook.name, webhook.url.reveal(), webhook.secret.reveal()) == ("ops", WEBHOOK["url"], SECRET)
    assert webhook.types == frozenset(CHOSEN_TYPES)
    assert settings.alerts.unsettled_per_hour == 3
    assert "hooks.example.com" not in repr(settings)
    assert SECRET not in repr(settings)


def test_webhook_gets_the_types_that_are_listed(tmp_path: Path) -> None:
    alerts = load_settings(write(tmp_path, webhooks=[{**WEBHOOK, "types": ["requests.unsettled"]}])).settings.alerts

    assert alerts.list_receivers(AlertType.UNSETTLED) == alerts.webhooks
    assert alerts.list_receivers(AlertType.BUDGET) == ()


def test_nobody_is_told_by_default(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path)).settings.alerts == AlertSettings()


@pytest.mark.parametrize(
    ("webhooks", "key", "rule"),
    [
        ([WEBHOOK, WEBHOOK], "alerts.webhooks[1].name", "is already the name of another webhook"),
        ([{**WEBHOOK, "url": "ftp://hooks.example.com/sk-url"}], "alerts.webhooks[0].url", "is not an http or https"),
        ([{**WEBHOOK, "url": "https:///sk-url"}], "alerts.webhooks[0].url", "is not an http or https"),
        ([{**WEBHOOK, "url": "https://u:sk-url@h.example/"}], "alerts.webhooks[0].url", "without user and password"),
        ([{**WEBHOOK, "url": "https://[::1/sk-url"}], "alerts.webhooks[0].url", "is not an http or https"),
        ([{**WEBHOOK, "secret": {"env": "TEST_SHORT"}}], "alerts.webhooks[0].secret", "has 24 to 64 bytes"),
        ([{**WEBHOOK, "types": ["alert.test"]}], "alerts.webhooks[0].types[0]", "budget.threshold_reached"),
        ([{"name": "ops", "url": "https://h.example"}], "alerts.webhooks[0].secret", "required"),
    ],
)
def test_fault_names_its_place_and_repeats_no_secret(
    webhooks: list[dict[str, Any]], key: str, rule: str, tmp_path: Path
) -> None:
    (fault,) = read_config(write(tmp_path, webhooks=webhooks)).faults

    assert fault.key == key
    assert rule in str(fault)
    assert "sk-url" not in str(fault)
    assert "YWJj" not in str(fault)
