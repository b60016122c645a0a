"""The writer thread's states: it works, it fails and retries, it ends.  The store is a fake."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.domain.record import ObjectOwner
from tornado_proxy.ledger.database import StoreError
from tornado_proxy.ledger.rows import make_intent_row, make_record_row
from tornado_proxy.ledger.writer import writer_thread
from tornado_proxy.ledger.writer.operations import (
    Operation,
    QueueItem,
    ReadStore,
    WithdrawIntent,
    WriteIntent,
    WriteRecord,
)
from tornado_proxy.ledger.writer.store import Batch
from tornado_proxy.ledger.writer.writer_thread import Queue, Writer

TIMEOUT_S = 20


@dataclass
class FakeStore:
    """Holds batches; raises `fault` for every write while it is set, and ValueError for a participant "bad"."""

    journal_path: Path
    fault: Exception | None = None
    batches: list[Batch] = field(default_factory=list)
    kept_files: bool | None = None

    def write(self, batch: Batch) -> None:
        self.check()
        if any(row.participant == "bad" for row in (*batch.intents, *batch.records)):
            raise ValueError("bad value")
        self.batches.append(batch)

    def check(self) -> None:
        if self.fault is not None:
            raise self.fault

    def reopen(self) -> None:
        self.check()

    def probe(self, now: datetime) -> None:
        self.check()

    def has_dead_neighbors(self) -> bool:
        return False

    def settle_orphans(self, now: datetime) -> None:
        self.check()

    def close(self, *, keep_files: bool = False) -> None:
        self.kept_files = keep_files

    def find_owner(self, provider: str, object_id: str) -> ObjectOwner | None:
        if provider == "broken":
            raise StoreError("query failed")
        return ObjectOwner(f"{provider}/{object_id}")

    @property
    def record_ids(self) -> list[object]:
        # A database ignores the second record of a request.
        return list(dict.fromkeys(row.request_id for batch in self.batches for row in batch.records))

    @property
    def intent_ids(self) -> list[object]:
        return [row.request_id for batch in self.batches for row in batch.intents]

    @property
    def withdrawn(self) -> list[str]:
        return [request_id for batch in self.batches for request_id in batch.withdrawn]


@dataclass
class FakeReport:
    """Notes every report, and wakes the waiting test."""

    results: list[tuple[Operation, object]] = field(default_factory=list)
    refusals: list[tuple[Operation, str, bool]] = field(default_factory=list)
    journal: list[Operation] = field(default_factory=list)
    faults: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def written(self, items: Sequence[QueueItem]) -> None:
        with self.changed:
            self.results += [(item.operation, item.result) for item in items]
            self.changed.notify_all()

    def refused(self, items: Sequence[QueueItem], reason: str, *, failing: bool) -> None:
        with self.changed:
            self.faults += failing and not items
            self.refusals += [(item.operation, reason, failing) for item in items]
            self.changed.notify_all()

    def journaled(self, items: Sequence[QueueItem]) -> None:
        with self.changed:
            self.journal += [item.operation for item in items]
            self.changed.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, TIMEOUT_S)


class RunningWriter:
    """A writer thread on fakes."""

    def __init__(self, folder: Path) -> None:
        self.store = FakeStore(folder / "journal")
        self.report = FakeReport()
        self._queue: Queue = queue.SimpleQueue()
        self._writer = Writer(self.store, self._queue, self.report)  # type: ignore[arg-type]  # a fake
        self._thread = threading.Thread(target=self._writer.run)
        self._thread.start()

    def put(self, *operations: Operation) -> None:
        self._queue.put([QueueItem(operation) for operation in operations])

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[RunningWriter]:
    running = RunningWriter(tmp_path)
    yield running
    running.close()


def write_intent(request_id: str, participant: str = "ada") -> WriteIntent:
    return WriteIntent(replace(make_intent_row(make_intent(request_id)), participant=participant))


def write_record(request_id: str, participant: str = "ada") -> WriteRecord:
    return WriteRecord(replace(make_record_row(make_record(make_intent(request_id))), participant=participant))


def find_owner(provider: str) -> ReadStore:
    return ReadStore(lambda store: store.find_owner(provider, "o1"))


def fail(writer: RunningWriter, fault: Exception) -> None:
    """Make the store fail, and wait until a refused query shows that the writer knows."""
    writer.store.fault = fault
    writer.put(find_owner("openai"))
    writer.report.wait_for(lambda: bool(writer.report.refusals))
    writer.report.refusals.clear()


def test_queued_operations_are_one_transaction_and_queries_follow_it(writer: RunningWriter) -> None:
    operations: list[Operation] = [write_intent("r1"), find_owner("openai"), write_record("r1"), WithdrawIntent("r2")]

    writer.put(*operations)
    writer.report.wait_for(lambda: len(writer.report.results) == 4)

    assert len(writer.store.batches) == 1
    assert writer.report.results == list(zip(operations, [None, ObjectOwner("openai/o1"), None, None], strict=True))


def test_failing_query_is_refused_alone(writer: RunningWriter) -> None:
    writer.put(find_owner("broken"), find_owner("openai"))
    writer.report.wait_for(lambda: bool(writer.report.results and writer.report.refusals))

    assert [(reason, failing) for _, reason, failing in writer.report.refusals] == [("query failed", False)]
    assert [result for _, result in writer.report.results] == [ObjectOwner("openai/o1")]


def test_operation_with_bad_values_is_refused_alone(writer: RunningWriter) -> None:
    writer.put(write_record("r1"), write_record("r2", "bad"), write_record("r3"))
    writer.report.wait_for(lambda: len(writer.report.results) == 2 and bool(writer.report.refusals))

    assert writer.store.record_ids == ["r1", "r3"]
    ((operation, reason, failing),) = writer.report.refusals
    assert (operation, failing) == (write_record("r2", "bad"), False)
    assert "bad value" in reason


def test_unstorable_text_is_replaced_before_an_operation_is_refused(writer: RunningWriter) -> None:
    def write_storable_only(batch: Batch) -> None:
        for row in batch.records:
            str(row.participant).encode()  # raises UnicodeEncodeError, as the driver of a database does
        writer.store.batches.append(batch)

    writer.store.write = write_storable_only  # type: ignore[method-assign]  # the fault of a driver
    writer.put(write_record("r1", "ad\udc80a"))
    writer.report.wait_for(lambda: bool(writer.report.results))

    assert [row.participant for batch in writer.store.batches for row in batch.records] == ["ad?a"]


@pytest.mark.parametrize("fault", [StoreError("ledger.db: the disk is full"), OSError(28, "no space"), MemoryError()])
def test_failed_transaction_refuses_intents_withdraws_them_and_retries_records(
    writer: RunningWriter, fault: Exception
) -> None:
    intent, query = write_intent("r1"), find_owner("openai")
    writer.store.fault = fault

    writer.put(intent, write_record("r2"), query)
    writer.report.wait_for(lambda: len(writer.report.refusals) == 2)
    assert {(operation, failing) for operation, _, failing in writer.report.refusals if operation is query} == {
        (query, True)
    }
    assert not writer.report.results
    writer.store.fault = None
    writer.report.wait_for(lambda: len(writer.report.results) == 2)

    assert (writer.store.record_ids, writer.store.intent_ids, writer.store.withdrawn) == (["r2"], [], ["r1"])


def test_failing_store_refuses_new_intents_at_once(writer: RunningWriter) -> None:
    fail(writer, StoreError("ledger.db: the disk is full"))

    writer.put(write_intent("r1"))
    writer.report.wait_for(lambda: bool(writer.report.refusals))

    assert writer.report.refusals[0][1:] == ("ledger.db: the disk is full", True)
    writer.store.fault = None


def test_fault_is_found_without_operations_and_recovery_is_reported(
    writer: RunningWriter, caplog: pytest.LogCaptureFixture
) -> None:
    writer.store.fault = StoreError("ledger.db: the disk is full")
    writer.report.wait_for(lambda: writer.report.faults > 0)
    writer.store.fault = None

    writer.put(write_record("r1"))
    writer.report.wait_for(lambda: bool(writer.report.results))

    assert "the ledger can be written again" in caplog.messages
    assert writer.store.record_ids == ["r1"]


def test_records_over_the_memory_limit_wait_in_the_journal_alone(
    writer: RunningWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_thread, "MAX_HELD_OPERATIONS", 3)
    fail(writer, StoreError("ledger.db: the disk is full"))

    writer.put(*(write_record(f"r{number}") for number in range(5)))
    writer.report.wait_for(lambda: len(writer.report.journal) == 5)
    writer.store.fault = None
    writer.put(write_record("r5"))
    writer.report.wait_for(lambda: bool(writer.report.results))

    assert writer.store.record_ids == [f"r{number}" for number in range(6)]


def test_records_of_a_failing_store_are_left_to_the_journal_at_the_end(tmp_path: Path) -> None:
    writer = RunningWriter(tmp_path)
    fail(writer, StoreError("ledger.db: the disk is full"))

    writer.put(write_record("r1"))
    writer.close()

    assert writer.report.journal == [write_record("r1")]
    assert writer.store.kept_files is True


def test_record_that_the_journal_cannot_hold_is_logged_in_full(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "journal").mkdir()  # no file can be opened with this path
    writer = RunningWriter(tmp_path)
    fail(writer, StoreError("ledger.db: the disk is full"))

    writer.put(write_record("r1"))
    writer.close()

    (line,) = [record for record in caplog.records if record.levelname == "CRITICAL"]
    assert line.message == "record lost from ledger and journal; the full record is in this line"
    assert line.record == write_record("r1").row  # type: ignore[attr-defined]  # of `extra`


def test_working_store_keeps_no_files_at_the_end(tmp_path: Path) -> None:
    writer = RunningWriter(tmp_path)
    writer.put(write_record("r1"))
    writer.close()

    assert (writer.store.record_ids, writer.store.kept_files) == (["r1"], False)
