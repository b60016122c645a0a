"""Intents and records survive the death of the process in a log beside the database."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from msgspec.structs import astuple

from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.ledger.columns import RecordRow
from tornado_proxy.ledger.rows import encode_row, make_intent_row, make_record_row
from tornado_proxy.ledger.writer.intent_log import IntentLog, read_intents, read_records


def open_log(folder: Path) -> IntentLog:
    log = IntentLog(lambda number: folder / f"intents-{number}")
    log.open()
    return log


def test_appended_intents_are_read_back(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    rows = [
        make_intent_row(make_intent("r1")),
        make_intent_row(make_intent("r2", session="half a surrogate pair \udc80")),
    ]
    for row in rows:
        log.append(encode_row(row))
    log.close()

    assert list(read_intents(tmp_path / "intents-0")) == rows


def test_intent_of_an_earlier_version_lacks_the_last_columns(tmp_path: Path) -> None:
    values = astuple(make_intent_row(make_intent("r1", labels={"a": "b"})))
    (tmp_path / "intents-0").write_text(json.dumps(values[:13]))  # the columns up to `annotations`

    (row,) = read_intents(tmp_path / "intents-0")

    assert (row.request_id, row.credential_id, row.labels) == ("r1", "key-1", None)


def test_record_of_an_earlier_version_has_all_of_its_columns_and_lacks_others(tmp_path: Path) -> None:
    (tmp_path / "intents-0").write_text('{"request_id":"r1","usage":null,"status":200,"objects":["cntr_1"]}\n')

    (row,) = read_records(tmp_path / "intents-0")

    assert row == RecordRow("r1", status=200, objects=("cntr_1",))


@pytest.mark.parametrize("bytes_lost", [1, 20, 100])
def test_truncated_line_hides_no_other(bytes_lost: int, tmp_path: Path) -> None:
    path = tmp_path / "intents-0"
    log = open_log(tmp_path)
    log.append(encode_row(make_intent_row(make_intent("r1"))))
    log.append(encode_row(make_intent_row(make_intent("r2"))))
    os.truncate(path, path.stat().st_size - bytes_lost)  # as a disk that is full in the middle of r2
    log.append(encode_row(make_intent_row(make_intent("r3"))))
    log.close()

    assert [row.request_id for row in read_intents(path)] == ["r1", "r3"]


def test_records_are_read_back_beside_intents(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    intent = make_intent("r1", session="half a surrogate pair \udc80")
    log.append(encode_row(make_intent_row(intent)))
    log.append(encode_row(make_intent_row(make_intent("r2"))))
    row = make_record_row(make_record(intent, objects=("cntr_1",)))
    log.append(encode_row(row))
    log.close()

    assert [row.request_id for row in read_intents(tmp_path / "intents-0")] == ["r1", "r2"]
    assert read_records(tmp_path / "intents-0") == [row]


def test_last_record_of_a_request_counts(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    for status in (200, 499):
        log.append(encode_row(RecordRow("r1", status=status)))
    log.close()

    assert [(row.status, row.kept_facts) for row in read_records(tmp_path / "intents-0")] == [(499, None)]


@pytest.mark.parametrize("bytes_lost", [1, 20, 100])
def test_truncated_record_hides_no_other(bytes_lost: int, tmp_path: Path) -> None:
    path = tmp_path / "intents-0"
    log = open_log(tmp_path)
    for number in (1, 2):
        log.append(encode_row(make_record_row(make_record(make_intent(f"r{number}")))))
    os.truncate(path, path.stat().st_size - bytes_lost)
    log.append(encode_row(make_record_row(make_record(make_intent("r3")))))
    log.close()

    assert [row.request_id for row in read_records(path)] == ["r1", "r3"]
