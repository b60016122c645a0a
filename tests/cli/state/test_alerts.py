"""`tornado-proxy alerts test` sends to real receivers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.alerts.receiver import SECRET, Receiver, running_receiver
from tests.cli.rated_ledger import run
from tests.harness import SECRETS, write_config


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SECRETS, "TEST_WEBHOOK_SECRET": SECRET}.items():
        monkeypatch.setenv(name, value)


def write(folder: Path, receivers: Mapping[str, Receiver]) -> str:
    webhooks = [
        {"name": name, "url": receiver.url, "secret": {"env": "TEST_WEBHOOK_SECRET"}}
        for name, receiver in receivers.items()
    ]
    return str(write_config(folder, "http://127.0.0.1:1", alerts={"webhooks": webhooks}))


def test_each_webhook_gets_a_signed_message_and_the_responses_are_printed(tmp_path: Path) -> None:
    with running_receiver() as good, running_receiver(statuses=[403]) as bad:
        config = write(tmp_path, {"good": good, "bad": bad})
        both = run("alerts", "test", "--config", config)
        one = run("alerts", "test", "--config", config, "--webhook", "good")

    assert both.exit_code == 1
    assert "good: accepted with status 204 in " in both.stdout
    assert "bad: not accepted: status 403\n" in both.stdout
    assert one.exit_code == 0
    assert good.list_types() == ["alert.test", "alert.test"]
    assert len({message_id for message_id, _ in good.messages}) == 2


def test_configuration_without_the_webhook_is_an_error(tmp_path: Path) -> None:
    config = write(tmp_path, {})

    assert "has no webhook; add it to alerts.webhooks" in run("alerts", "test", "--config", config).stderr
    missing = run("alerts", "test", "--config", config, "--webhook", "pager")
    assert (missing.exit_code, "has no webhook 'pager'" in missing.stderr) == (1, True)
