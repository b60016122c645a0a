"""The rules of each operation that the writer's queue holds."""

from __future__ import annotations

import pytest

from tornado_proxy.ledger.rows import Row
from tornado_proxy.ledger.writer.operations import (
    MoveIntents,
    Operation,
    QueueItem,
    ReadStore,
    WithdrawIntent,
    WriteIntent,
    WriteRecord,
    WriteSettlement,
    find_record,
    make_storable,
    make_withdrawal,
)
from tornado_proxy.ledger.writer.writer_thread import make_batch

ROW: Row = {"request_id": "r1", "participant": "ad\udc80a"}
STORABLE_ROW: Row = {"request_id": "r1", "participant": "ad?a"}
READ = ReadStore(lambda store: None)


@pytest.mark.parametrize(
    ("operation", "retried", "waits"),
    [
        pytest.param(WriteIntent(ROW), False, False, id="an intent is refused before its request costs anything"),
        pytest.param(MoveIntents([ROW]), True, False, id="moved intents are retried"),
        pytest.param(WriteRecord(ROW), True, True, id="a record is retried, and waits for others"),
        pytest.param(WriteSettlement(ROW), True, False, id="a settlement is retried"),
        pytest.param(WithdrawIntent("r1"), True, False, id="a withdrawal is retried"),
        pytest.param(READ, False, False, id="a query is refused"),
    ],
)
def test_operation_decides_whether_it_is_retried_and_whether_it_may_wait(
    operation: Operation, retried: bool, waits: bool
) -> None:
    assert (operation.retried, operation.waits) == (retried, waits)


@pytest.mark.parametrize("kind", [WriteIntent, WriteRecord, WriteSettlement])
def test_unstorable_text_is_replaced_in_each_row(
    kind: type[WriteIntent] | type[WriteRecord] | type[WriteSettlement],
) -> None:
    assert make_storable(kind(ROW)) == kind(STORABLE_ROW)
    assert make_storable(kind(STORABLE_ROW)) == kind(STORABLE_ROW)


@pytest.mark.parametrize("operation", [MoveIntents([ROW]), WithdrawIntent("r1"), READ])
def test_operation_without_a_row_of_its_own_is_unchanged(operation: Operation) -> None:
    assert make_storable(operation) is operation


def test_only_an_intent_has_a_withdrawal_and_only_a_record_has_a_journal_row() -> None:
    operations: list[Operation] = [WriteIntent(ROW), WriteRecord(ROW), WriteSettlement(ROW), READ]

    assert [make_withdrawal(operation) for operation in operations] == [WithdrawIntent("r1"), None, None, None]
    assert [find_record(operation) for operation in operations] == [None, ROW, None, None]


def test_batch_holds_the_rows_of_all_operations_by_table() -> None:
    moved: Row = {"request_id": "r2"}
    settled: Row = {"request_id": "r3"}
    operations: list[Operation] = [
        WriteRecord(ROW),
        WriteIntent(STORABLE_ROW),
        READ,
        MoveIntents([moved]),
        WriteSettlement(settled),
        WithdrawIntent("r4"),
    ]

    batch = make_batch([QueueItem(operation) for operation in operations])

    assert (batch.intents, batch.records) == ([STORABLE_ROW, moved], [ROW])
    assert (batch.settlements, batch.withdrawn) == ([settled], ["r4"])


def test_items_are_compared_by_identity() -> None:
    first, second = QueueItem(WriteRecord(ROW)), QueueItem(WriteRecord(ROW))

    assert first.operation == second.operation
    assert len({first, second}) == 2
