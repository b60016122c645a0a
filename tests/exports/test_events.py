"""Events follow CloudEvents, and their differences add up to what `usage` shows."""

from __future__ import annotations

import json
import os
from decimal import Decimal
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from tests.exports.generated_ledger import write_generated_ledger
from tests.harness import ROOT
from tornado_proxy.cli import main
from tornado_proxy.exports.events import make_event
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.changes import COLUMNS, Change, ChangeKind
from tornado_proxy.ledger.reports.record_sums import sum_records
from tornado_proxy.ledger.reports.records_query import EXACT, UsageFilter

#: Records of the generated ledger; 100000 takes a minute.
RECORDS = int(os.environ.get("EXPORT_RECORDS", "2000"))

#: The required attributes and their types, by CloudEvents 1.0.2 sections "REQUIRED Attributes" and "Type System".
CLOUD_EVENT = {
    "type": "object",
    "required": ["specversion", "id", "source", "type"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1},
        "source": {"type": "string", "minLength": 1},
        "type": {"type": "string", "minLength": 1},
        "subject": {"type": "string", "minLength": 1},
        "datacontenttype": {"const": "application/json"},
        "time": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"},
        "data": {"type": "object"},
    },
    # Names of attributes: lower case letters and digits.
    "propertyNames": {"pattern": "^[a-z0-9]{1,20}$"},
}


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generated") / "ledger.db"
    write_generated_ledger(path, RECORDS)
    return path


@pytest.fixture(scope="module")
def events(ledger: Path) -> list[dict]:
    result = CliRunner().invoke(main, ["export", "events", "--ledger", f"sqlite:///{ledger}"])
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_events_follow_cloudevents_and_the_schema_of_records(events: list[dict]) -> None:
    record = json.loads((ROOT / "schemas/usage_record.schema.json").read_text())
    cloud_event, data = jsonschema.Draft202012Validator(CLOUD_EVENT), jsonschema.Draft202012Validator(record)

    for event in events[:500] + events[-500:]:
        cloud_event.validate(event)
        data.validate(event["data"]["record"])


def test_differences_of_events_add_up_to_the_sums_of_usage(ledger: Path, events: list[dict]) -> None:
    (usage,) = sum_records(make_backend(ledger), UsageFilter(), ())

    for name in ("subtotal", "surcharge", "total"):
        total = Decimal(0)
        for event in events:
            total = EXACT.add(total, Decimal(event["data"]["difference"][name]))
        assert total == getattr(usage, name)
    assert usage.requests == RECORDS
    assert usage.total > 0


def test_each_event_has_an_id_of_its_own_and_a_correction_names_the_first(events: list[dict]) -> None:
    ids = [event["id"] for event in events]
    corrections = [event for event in events if "corrects" in event]

    assert len(set(ids)) == len(ids) == RECORDS + RECORDS // 10
    assert len(corrections) == RECORDS // 10
    places = {event_id: place for place, event_id in enumerate(ids)}
    for event in corrections:
        assert event["id"] in (f"{event['corrects']}/settlement", f"{event['corrects']}/given_up")
        assert places[event["corrects"]] < places[event["id"]]


def test_command_continues_after_a_cursor(ledger: Path, events: list[dict]) -> None:
    arguments = ["export", "events", "--ledger", f"sqlite:///{ledger}", "--since"]

    result = CliRunner().invoke(main, [*arguments, f"{RECORDS - 1}.{RECORDS // 10}"])

    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == [f"req_{RECORDS - 1:08}"]
    assert result.stderr == f"cursor {RECORDS}.{RECORDS // 10}\n"


def test_wrong_cursor_is_a_usage_error(ledger: Path) -> None:
    result = CliRunner().invoke(main, ["export", "events", "--ledger", f"sqlite:///{ledger}", "--since", "yesterday"])

    assert result.exit_code == 2
    assert "'yesterday' is no cursor; use 0.0 for the beginning" in result.stderr


def test_lost_request_is_an_event_of_unknown_cost() -> None:
    row = dict.fromkeys(COLUMNS) | {
        "request_id": "req_1",
        "project_id": "p",
        "subtotal": "0",
        "surcharge": "0",
        "total": "0",
    }

    event = json.loads(make_event(Change(ChangeKind.LOST, "2026-03-02T10:00:00.000Z", row)).text)

    assert (event["id"], event["type"], event["time"]) == (
        "req_1/lost",
        "tornado-proxy.request.lost",
        "2026-03-02T10:00:00.000Z",
    )
    assert "corrects" not in event
    assert event["data"]["difference"] == {"subtotal": "0", "surcharge": "0", "total": "0"}
