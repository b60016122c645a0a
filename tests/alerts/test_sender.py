"""Alerts reach each webhook once in their period: in several processes, after faults and after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace

from tests.alerts.receiver import Receiver, running_receiver
from tests.ledger.conftest import open_ledger
from tests.ledger.sample_records import COST, make_intent, make_record
from tests.state.conftest import MakeStore, address, make_store  # noqa: F401  (fixtures)
from tornado_proxy.alerts import sender as sender_module
from tornado_proxy.alerts.sender import AlertSender, FindUsage
from tornado_proxy.config.sections.alerts import AlertSettings
from tornado_proxy.domain.alert import Alert, AlertType
from tornado_proxy.domain.config.ledger_address import LedgerAddress
from tornado_proxy.domain.record import Settlement
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.backends import make_ledger
from tornado_proxy.ledger.reports.usage import UsageQuery, UsageResult
from tornado_proxy.ledger.rows import format_time
from tornado_proxy.state import alert_table
from tornado_proxy.state.watcher import StateWatcher

WAIT_S = 20.0


@pytest.fixture
def frequent_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for messages to send 20 times a second, so that a test does not wait for polls."""
    monkeypatch.setattr(sender_module, "_POLL_S", 0.05)


def alert(key: str, kind: AlertType = AlertType.PROVIDER_KEY) -> Alert:
    now = datetime.now(UTC)
    return Alert(kind, key, now, now + timedelta(hours=1), {"key": key})


async def find_nothing(query: UsageQuery) -> UsageResult:
    """Return the usage of a ledger without records."""
    return UsageResult([], 0, Decimal(0), 0, 0)


@contextlib.asynccontextmanager
async def process(
    make: MakeStore, settings: AlertSettings, find_usage: FindUsage = find_nothing
) -> AsyncIterator[AlertSender]:
    """Yield the sender of one process, which runs meanwhile."""
    watcher = StateWatcher(make(), lambda state: None)
    await watcher.open()
    sender = AlertSender(watcher, lambda: settings, find_usage)
    task = asyncio.create_task(sender.run())
    try:
        yield sender
    finally:
        task.cancel()
        await sender.flush()
        await watcher.close()


async def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while not is_so():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)


def keys(receiver: Receiver) -> list[str]:
    return sorted(content["data"]["key"] for _, content in list(receiver.messages))


def test_alert_that_two_processes_tell_reaches_each_webhook_once(make_store: MakeStore) -> None:  # noqa: F811
    async def run(one: Receiver, two: Receiver) -> None:
        settings = AlertSettings((one.webhook("one"), two.webhook("two")))
        async with process(make_store, settings) as first, process(make_store, settings) as second:
            for number in range(5):
                first.tell(alert(f"a{number}"))
                second.tell(alert(f"a{number}"))
            await wait_for(lambda: len(one.messages) == len(two.messages) == 5)
            second.tell(alert("a0"))
            second.tell(alert("last"))
            await wait_for(lambda: len(one.messages) == len(two.messages) == 6)

    with running_receiver() as one, running_receiver() as two:
        asyncio.run(run(one, two))

    assert keys(one) == keys(two) == ["a0", "a1", "a2", "a3", "a4", "last"]


@pytest.mark.usefixtures("frequent_polls")
def test_message_that_is_not_accepted_is_sent_again_with_the_same_id(
    make_store: MakeStore,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sender_module, "_RETRIES", (timedelta(0), timedelta(0), timedelta(0)))

    async def run(receiver: Receiver) -> None:
        async with process(make_store, AlertSettings((receiver.webhook(),))) as sender:
            sender.tell(alert("a"))
            await wait_for(lambda: len(receiver.messages) == 3)
            sender.tell(alert("b"))
            await wait_for(lambda: len(receiver.messages) == 4)

    with running_receiver(statuses=[500, 302, 200]) as receiver:
        asyncio.run(run(receiver))

    assert [content["data"]["key"] for _, content in receiver.messages] == ["a", "a", "a", "b"]
    assert len({message_id for message_id, _ in receiver.messages}) == 2


@pytest.mark.usefixtures("frequent_polls")
def test_message_is_given_up_after_its_attempts_and_logged_with_its_text(
    make_store: MakeStore,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sender_module, "_RETRIES", (timedelta(0),))

    async def run(receiver: Receiver) -> None:
        async with process(make_store, AlertSettings((receiver.webhook(),))) as sender:
            sender.tell(alert("a"))
            await wait_for(lambda: "alert given up" in caplog.messages)
            sender.tell(alert("a"))
            await asyncio.sleep(sender_module._POLL_S + 0.2)

    with caplog.at_level(logging.WARNING), running_receiver(statuses=[503]) as receiver:
        asyncio.run(run(receiver))

    assert len(receiver.messages) == 2
    (given_up,) = [record for record in caplog.records if record.message == "alert given up"]
    assert '"key":"a"' in given_up.body  # type: ignore[attr-defined]


def test_alert_of_a_process_that_ends_is_sent_after_the_next_start(make_store: MakeStore) -> None:  # noqa: F811
    async def run(receiver: Receiver) -> None:
        settings = AlertSettings((receiver.webhook("ops", AlertType.PROVIDER_KEY),))
        watcher = StateWatcher(make_store(), lambda state: None)
        await watcher.open()
        ending = AlertSender(watcher, lambda: settings, find_nothing)
        stored: list[str] = []
        ending.tell(alert("a"), lambda: stored.append("a"))
        ending.tell(alert("b", AlertType.BUDGET), lambda: stored.append("b"))
        assert stored == ["b"]  # its type is sent to none
        await ending.flush()
        assert stored == ["b", "a"]
        await watcher.close()
        assert receiver.messages == []
        async with process(make_store, settings):
            await wait_for(lambda: len(receiver.messages) == 1)

    with running_receiver() as receiver:
        asyncio.run(run(receiver))


def test_webhook_gets_the_types_that_it_has_chosen(make_store: MakeStore) -> None:  # noqa: F811
    async def run(receiver: Receiver) -> None:
        settings = AlertSettings((receiver.webhook("ops", AlertType.BUDGET),))
        async with process(make_store, settings) as sender:
            sender.tell(alert("a"))
            sender.tell(alert("b", AlertType.BUDGET))
            await wait_for(lambda: bool(receiver.messages))

    with running_receiver() as receiver:
        asyncio.run(run(receiver))

    assert receiver.list_types() == ["budget.threshold_reached"]


@pytest.mark.usefixtures("frequent_polls")
def test_alert_that_waits_when_the_last_webhook_is_removed_is_over(make_store: MakeStore) -> None:  # noqa: F811
    async def run(receiver: Receiver) -> None:
        settings = AlertSettings((receiver.webhook(),))
        watcher = StateWatcher(make_store(), lambda state: None)
        await watcher.open()
        sender = AlertSender(watcher, lambda: settings, find_nothing)
        stored: list[str] = []
        sender.tell(alert("a"), lambda: stored.append("a"))
        settings = AlertSettings()
        task = asyncio.create_task(sender.run())
        await wait_for(lambda: stored == ["a"])
        task.cancel()
        await watcher.close()
        assert receiver.messages == []

    with running_receiver() as receiver:
        asyncio.run(run(receiver))


def test_messages_that_wait_for_a_webhook_are_bounded(
    make_store: MakeStore,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(alert_table, "MAX_WAITING", 2)
    monkeypatch.setattr(sender_module, "MAX_QUEUED", 3)

    async def run(receiver: Receiver) -> None:
        async with process(make_store, AlertSettings((receiver.webhook(),))) as sender:
            for number in range(5):
                sender.tell(alert(f"a{number}"))
            await wait_for(lambda: len(receiver.messages) == 2)

    with caplog.at_level(logging.ERROR), running_receiver() as receiver:
        asyncio.run(run(receiver))

    # Two did not fit into the queue, and one not into the table.
    assert caplog.messages == ["alert dropped; too many wait"] * 3
    assert keys(receiver) == ["a0", "a1"]


def test_requests_whose_cost_turns_out_to_be_unknown_hours_later_are_told_once(
    make_store: MakeStore,  # noqa: F811
    address: LedgerAddress,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their process has died in the next hour, or their provider has not reported a batch."""
    monkeypatch.setattr(sender_module, "_MINUTE_S", 0.05)
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=7)
    began = [hour + timedelta(minutes=1), hour + timedelta(minutes=59), hour + timedelta(hours=1)]
    records = [make_record(make_intent(f"r{number}", started_at=at)) for number, at in enumerate(began)]
    pending = make_record(make_intent("batch", started_at=hour), basis=Basis.PENDING, object_id="b")
    unknown = [replace(record, basis=Basis.UNSETTLED) for record in records]
    given_up = Settlement("batch", None, Basis.UNSETTLED, COST, datetime.now(UTC), final=False)

    async def run(receiver: Receiver) -> None:
        settings = AlertSettings((receiver.webhook(),), unsettled_per_hour=3)
        async with open_ledger(lambda: make_ledger(address), [*unknown, pending]) as ledger:
            async with process(make_store, settings, ledger.usage):
                await ledger.settle(given_up)
                await wait_for(lambda: bool(receiver.messages))
            async with process(make_store, settings, ledger.usage) as restarted:
                restarted.tell(alert("last"))
                await wait_for(lambda: len(receiver.messages) > 1)

    with running_receiver() as receiver:
        asyncio.run(run(receiver))

    (found,) = receiver.find(AlertType.UNSETTLED)
    assert found == {"requests": 3, "unsettled_per_hour": 3, "start": format_time(hour)}
