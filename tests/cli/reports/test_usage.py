"""`tornado-proxy usage` on a ledger with four records of two callers."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.cli.rated_ledger import run, write_ledger
from tests.ledger.sample_records import CALLER, make_intent, make_record
from tornado_proxy.domain.cost import Cost
from tornado_proxy.domain.record import RetryFacts
from tornado_proxy.domain.usage import Basis

FORMULA = "=2+5"

#: By hand: each request of tests/ledger/sample_records.py costs 0.00225, and 5 % of it on top.
SUBTOTAL, SURCHARGE, TOTAL = Decimal("0.00225"), Decimal("0.0001125"), Decimal("0.0023625")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> str:
    other = replace(CALLER, project_id="project-b", participant=FORMULA, room=None)
    nothing = Cost((), Decimal(0), Decimal(0), Decimal(0))
    later = datetime(2026, 3, 3, tzinfo=UTC)
    return write_ledger(
        tmp_path_factory.mktemp("usage"),
        [
            make_record(make_intent("req_1")),
            make_record(make_intent("req_2", started_at=later), model="gpt-4o-mini"),
            make_record(make_intent("req_3", caller=other, started_at=later)),
            make_record(
                make_intent("req_4", caller=other), cost=nothing, basis=Basis.UNSETTLED, model=None, usage=None
            ),
        ],
    )


def usage(ledger: str, *arguments: Any) -> Result:
    return run("usage", "--ledger", ledger, *arguments)


def rows(ledger: str, *arguments: Any) -> list[dict[str, Any]]:
    result = usage(ledger, *arguments, "--format", "jsonl")
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_jsonl_has_a_record_per_line_with_decimals_as_text(ledger: str) -> None:
    first = rows(ledger)[0]

    assert list(first) == [
        *("request_id", "project_id", "room", "participant", "user", "issuer", "session", "provider", "endpoint"),
        "method",
        *("model_requested", "model", "status", "outcome", "basis", "estimate_method"),
        *("started_at", "first_byte_at", "ended_at", "usage", "line_items", "subtotal", "surcharge", "total"),
        *("provider_key", "provider_key_ids", "labels"),
        *("agent_session", "agent", "parent_agent", "turn", "request_kind", "client", "repository", "commit"),
        *("end_user", "end_user_source", "retry_count", "retry_of"),
    ]
    assert first["usage"] == {"prompt_tokens": 1000, "completion_tokens": 100}
    assert [list(item) for item in first["line_items"]] == [
        ["type", "quantity", "unit", "unit_price", "amount", "model"]
    ] * 3
    assert (Decimal(first["subtotal"]), Decimal(first["surcharge"]), Decimal(first["total"])) == (
        SUBTOTAL,
        SURCHARGE,
        TOTAL,
    )


def test_money_spent_on_repeated_requests_is_shown(tmp_path: Path) -> None:
    later = datetime(2026, 3, 3, tzinfo=UTC)
    key, counted = RetryFacts("hash-1"), RetryFacts(None, "2")
    repeated = write_ledger(
        tmp_path,
        [
            make_record(make_intent("req_1", retry=key)),
            make_record(make_intent("req_2", retry=key, started_at=later)),
            make_record(make_intent("req_3", retry=counted, started_at=later)),
            make_record(make_intent("req_4")),
        ],
    )

    # Two of four requests of 0.0023625 each.
    line = "2 repeated requests: 0.004725 USD of the total (--retries shows them alone)"
    assert line in usage(repeated).stdout
    assert [(row["request_id"], row["retry_of"], row["retry_count"]) for row in rows(repeated, "--retries")] == [
        ("req_2", "req_1", None),
        ("req_3", None, "2"),
    ]
    assert "repeated" not in usage(repeated, "--model", "gpt-4o-mini").stdout


def test_records_are_summed_by_the_requested_groups(ledger: str) -> None:
    by_day = rows(ledger, "--group-by", "day,project")

    assert [(row["day"], row["project"], row["requests"], Decimal(row["total"])) for row in by_day] == [
        ("2026-03-02", "project-a", 1, TOTAL),
        ("2026-03-02", "project-b", 1, 0),
        ("2026-03-03", "project-a", 1, TOTAL),
        ("2026-03-03", "project-b", 1, TOTAL),
    ]
    assert [row["unsettled"] for row in by_day] == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("--project", "project-a"), ["req_1", "req_2"]),
        (("--participant", "ada"), ["req_1", "req_2"]),
        (("--room", "lab"), ["req_1", "req_2"]),
        (("--model", "gpt-4o-mini"), ["req_2"]),
        (("--basis", "unsettled"), ["req_4"]),
        (("--since", "2026-03-03"), ["req_2", "req_3"]),
        (("--until", "2026-03-03"), ["req_1", "req_4"]),
        (("--since", "2026-03-03T00:00:00+01:00", "--until", "2026-03-03T00:00:01Z"), ["req_2", "req_3"]),
        (("--provider", "anthropic"), []),
        (("--since", "1s"), []),
    ],
)
def test_filters_select_records(ledger: str, arguments: tuple[str, ...], found: list[str]) -> None:
    assert [row["request_id"] for row in rows(ledger, *arguments)] == found


def test_csv_escapes_formulas(ledger: str) -> None:
    lines = list(csv.DictReader(io.StringIO(usage(ledger, "--group-by", "participant", "--format", "csv").stdout)))

    assert [(line["participant"], line["requests"], Decimal(line["total"])) for line in lines] == [
        ("'" + FORMULA, "2", TOTAL),
        ("ada", "2", 2 * TOTAL),
    ]


def test_json_is_a_list(ledger: str, tmp_path: Path) -> None:
    listed = json.loads(usage(ledger, "--format", "json").stdout)

    assert [record["request_id"] for record in listed] == ["req_1", "req_4", "req_2", "req_3"]
    assert json.loads(usage(ledger, "--format", "json", "--room", "nowhere").stdout) == []


def test_table_counts_requests_without_a_known_cost(ledger: str) -> None:
    text = usage(ledger, "--group-by", "participant").stdout

    assert "│ all │ 4 │ 0.0067500 │ 0.0003375 │ 0.0070875 │" in " ".join(text.split())
    assert "1 unsettled request: cost not known" in text
    assert "1 unsettled request: cost not known" in usage(ledger, "--basis", "reported").stdout


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--group-by", "colour"), 2, "cannot group by colour"),
        (("--since", "yesterday"), 2, "is not a date, a time or a duration"),
        (("--since", "99999999999w"), 2, "is not a date, a time or a duration"),
        (("--ledger", "sqlite:///none/none.db"), 1, "there is no ledger"),
        (("--ledger", "mysql://x"), 2, "mysql://x"),
    ],
)
def test_error_has_a_reason(ledger: str, arguments: tuple[str, ...], status: int, message: str) -> None:
    result = usage(ledger, *arguments)

    assert (result.exit_code, message in result.stderr) == (status, True), result.stderr


def test_duration_is_counted_back_from_now(tmp_path: Path) -> None:
    lately = make_intent("req_1", started_at=datetime.now(UTC) - timedelta(hours=30))
    url = write_ledger(tmp_path, [make_record(lately)])

    assert [len(rows(url, "--since", span)) for span in ("24h", "2d", "1w")] == [0, 1, 1]


def test_csv_shows_control_characters_of_names_as_escapes(tmp_path: Path) -> None:
    caller = replace(CALLER, participant="ada\u202eb")
    intent = make_intent("req_1", caller=caller)
    ledger = write_ledger(tmp_path, [make_record(intent, model="gpt\x1b]0;x\x07\x9b2J")])

    result = usage(ledger, "--format", "csv")
    sums = usage(ledger, "--format", "csv", "--group-by", "participant")

    assert "gpt\\u001b]0;x\\u0007\\u009b2J" in result.stdout
    assert "ada\\u202eb" in sums.stdout
    assert not any(character in result.stdout + sums.stdout for character in "\x1b\x07\x9b\u202e")


def test_cache_report_takes_no_groups(ledger: str) -> None:
    result = usage(ledger, "--cache", "--group-by", "model")

    assert result.exit_code == 2
    assert "--cache reads a ledger and has groups of its own" in result.stderr


def test_cache_report_prints_a_table(ledger: str) -> None:
    result = usage(ledger, "--cache")

    assert result.exit_code == 0, result.stderr
    assert "read share" in result.stdout
