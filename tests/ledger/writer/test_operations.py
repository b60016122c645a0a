"""The rules of each operation that the writer's queue holds."""

from __future__ import annotations

import pytest

from tornado_proxy.ledger.columns import IntentRow, RecordRow, SettlementRow
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

INTENT, STORABLE_INTENT = IntentRow("r1", participant="ad\udc80a"), IntentRow("r1", participant="ad?a")
RECORD, STORABLE_RECORD = RecordRow("r1", participant="ad\udc80a"), RecordRow("r1", participant="ad?a")
SETTLEMENT, STORABLE_SETTLEMENT = SettlementRow("r1", model="half \udc80"), SettlementRow("r1", model="half ?")
READ = ReadStore(lambda store: None)


@pytest.mark.parametrize(
    ("operation", "retried", "waits"),
    [
        pytest.param(WriteIntent(INTENT), False, False, id="an intent is refused before its request costs anything"),
        pytest.param(MoveIntents([INTENT]), True, False, id="moved intents are retried"),
        pytest.param(WriteRecord(RECORD), True, True, id="a record is retried, and waits for others"),
        pytest.param(WriteSettlement(SETTLEMENT), True, False, id="a settlement is retried"),
        pytest.param(WithdrawIntent("r1"), True, False, id="a withdrawal is retried"),
        pytest.param(READ, False, False, id="a query is refused"),
    ],
)
def test_operation_decides_whether_it_is_retried_and_whether_it_may_wait(
    operation: Operation, retried: bool, waits: bool
) -> None:
    assert (operation.retried, operation.waits) == (retried, waits)


@pytest.mark.parametrize(
    ("operation", "storable"),
    [
        (WriteIntent(INTENT), WriteIntent(STORABLE_INTENT)),
        (WriteRecord(RECORD), WriteRecord(STORABLE_RECORD)),
        (WriteSettlement(SETTLEMENT), WriteSettlement(STORABLE_SETTLEMENT)),
    ],
)
def test_unstorable_text_is_replaced_in_each_row(operation: Operation, storable: Operation) -> None:
    assert make_storable(operation) == storable
    assert make_storable(storable) == storable


@pytest.mark.parametrize("operation", [MoveIntents([INTENT]), WithdrawIntent("r1"), READ])
def test_operation_without_a_row_of_its_own_is_unchanged(operation: Operation) -> None:
    assert make_storable(operation) is operation


def test_only_an_intent_has_a_withdrawal_and_only_a_record_has_a_journal_row() -> None:
    operations: list[Operation] = [WriteIntent(INTENT), WriteRecord(RECORD), WriteSettlement(SETTLEMENT), READ]

    assert [make_withdrawal(operation) for operation in operations] == [WithdrawIntent("r1"), None, None, None]
    assert [find_record(operation) for operation in operations] == [None, RECORD, None, None]


def test_batch_holds_the_rows_of_all_operations_by_table() -> None:
    moved, settled = IntentRow("r2"), SettlementRow("r3")
    operations: list[Operation] = [
        WriteRecord(RECORD),
        WriteIntent(STORABLE_INTENT),
        READ,
        MoveIntents([moved]),
        WriteSettlement(settled),
        WithdrawIntent("r4"),
    ]

    batch = make_batch([QueueItem(operation) for operation in operations])

    assert (batch.intents, batch.records) == ([STORABLE_INTENT, moved], [RECORD])
    assert (batch.settlements, batch.withdrawn) == ([settled], ["r4"])


def test_items_are_compared_by_identity() -> None:
    first, second = QueueItem(WriteRecord(RECORD)), QueueItem(WriteRecord(RECORD))

    assert first.operation == second.operation
    assert len({first, second}) == 2
