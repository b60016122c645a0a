"""Sums are compared with records while both are written; each sum that differs is found, and made right again."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.ledger.conftest import LedgerUnderTest, open_test_database
from tests.ledger.reports.test_rollup_query import add_to_sums, fill, make_random_record, settle
from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.cli import main
from tornado_proxy.domain.attribution import Attribution
from tornado_proxy.domain.config.ledger_address import PostgresAddress
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.sums.rebuild import END_OF_TIME, rebuild
from tornado_proxy.ledger.sums.rollups import lock_cursors, roll_up
from tornado_proxy.ledger.sums.verification import Difference, verify_sums

#: Two records of the hour of 10:00, and one of another day, each 0.0023625 USD.
HOUR, DAY = "2026-03-02T10:00:00.000Z", "2026-03-02T00:00:00.000Z"
SESSION = Attribution(agent_session="s1")
RECORDS = [
    make_record(make_intent("r1", attribution=SESSION)),
    make_record(make_intent("r2", attribution=SESSION)),
    make_record(make_intent("r3", started_at=datetime(2026, 3, 4, 7, tzinfo=UTC))),
]


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerUnderTest:
    return open_test_database(request, tmp_path)


@contextlib.contextmanager
def connect(store: LedgerUnderTest) -> Iterator[Database]:
    with contextlib.closing(make_backend(store.address).connect(create=False)) as db:
        yield db


def find_differences(store: LedgerUnderTest) -> list[Difference]:
    days = verify_sums(make_backend(store.address), "", END_OF_TIME)
    return [difference for day in days for difference in day.differences]


def name_url(store: LedgerUnderTest) -> str:
    return store.address.url if isinstance(store.address, PostgresAddress) else f"sqlite:///{store.address}"


def run(store: LedgerUnderTest, *words: str) -> Result:
    return CliRunner().invoke(main, ["ledger", *words, "--ledger", name_url(store)])


def test_sums_of_many_records_and_settlements_are_those_of_the_records(store: LedgerUnderTest) -> None:
    chance = random.Random(7)
    records = [make_random_record(number, chance) for number in range(300)]
    pending = [record for record in records if record.basis is Basis.PENDING]
    fill(store, records, [settle(record, chance) for record in pending[::2]])
    add_to_sums(store)
    later = len(pending) - len(pending[::2])

    verified = run(store, "verify")

    known = [row for row in store.records() if row["basis"] != "pending"]
    total = sum((Decimal(str(row["total"])) for row in known), Decimal(0))
    assert verified.stdout.splitlines() == [
        f"ok: 5 days, {300 - later} records, {total:f} USD",
        f"{later} other records are pending or new, and not in the sums yet; reports add them",
    ]
    assert verified.exit_code == 0


#: What is changed by hand -> the tables, spans and figures that are found to differ.
TAMPERINGS = {
    "a number of requests": (
        "UPDATE rollups SET requests = 3 WHERE span = 'hour' AND requests = 2",
        [("rollups", "hour", HOUR, {"requests": (3, 2)})],
    ),
    "a micro-dollar": (
        "UPDATE rollups SET subtotal_micro = subtotal_micro + 1 WHERE span = 'day' AND requests = 2",
        [("rollups", "day", DAY, {"subtotal": (Decimal("0.004501000000"), Decimal("0.004500000000"))})],
    ),
    "a decimal": (
        "UPDATE rollups SET surcharge_rest = surcharge_rest - 1 WHERE span = 'hour_all' AND requests = 2",
        [("rollups", "hour_all", HOUR, {"surcharge": (Decimal("0.000224999999"), Decimal("0.000225000000"))})],
    ),
    "a participant": (
        "UPDATE rollups SET participant = 'eve' WHERE span = 'hour' AND requests = 2",
        [("rollups", "hour", HOUR, {"participant": ("eve", "ada")})],
    ),
    "the numbers of records": (
        "UPDATE rollups SET seqs = '1,3' WHERE span = 'hour' AND requests = 2",
        [("rollups", "hour", HOUR, {"seqs": ("1,3", "1,2")})],
    ),
    "a sum of an agent session that is deleted": (
        "DELETE FROM attribute_sums",
        [
            (
                "attribute_sums",
                "agent_session",
                DAY,
                {
                    "requests": (0, 2),
                    "subtotal": (0, Decimal("0.004500000000")),
                    "decimals of subtotal": (0, 5),
                    "surcharge": (0, Decimal("0.000225000000")),
                    "decimals of surcharge": (0, 12),
                },
            )
        ],
    ),
    "a sum that no record has": (
        "INSERT INTO item_sums (span, start, key, shape, requests) "
        "VALUES ('day', '2026-03-03T00:00:00.000Z', 'k', 's', 5)",
        [("item_sums", "day", "2026-03-03T00:00:00.000Z", {"requests": (5, 0)})],
    ),
    "a quantity": (
        "UPDATE item_sums SET quantity_0 = quantity_0 + 1 WHERE span = 'day_all' AND requests = 2",
        [
            (
                "item_sums",
                "day_all",
                DAY,
                {
                    "quantity of input_tokens of gpt-5.4": (
                        Decimal("2000.001000000000"),
                        Decimal("2000.000000000000"),
                    )
                },
            )
        ],
    ),
}


def test_each_changed_sum_is_found_and_made_right_by_a_rebuild(store: LedgerUnderTest) -> None:
    fill(store, RECORDS, [])
    add_to_sums(store)
    dialect = make_backend(store.address).dialect
    with connect(store) as db:
        for change, (sql, expected) in TAMPERINGS.items():
            db.run(sql)

            found = [(each.table, each.span, each.start, each.figures) for each in find_differences(store)]
            rebuilt = rebuild(db, dialect, "2026-03-02", "2026-03-04")

            assert (found, rebuilt.corrected) == (expected, len(expected)), change
    assert find_differences(store) == []


def test_kinds_of_line_items_that_were_changed_are_found(store: LedgerUnderTest) -> None:
    fill(store, RECORDS, [])
    add_to_sums(store)
    with connect(store) as db:
        db.run("UPDATE item_shapes SET kinds = '[0, []]'")

    (first, *_) = find_differences(store)

    assert (first.table, first.figures["kinds"][0]) == ("item_shapes", "[0, []]")
    with connect(store) as db:
        rebuild(db, make_backend(store.address).dialect)
    assert find_differences(store) == []


def test_command_names_the_sum_its_difference_and_the_remedy(store: LedgerUnderTest) -> None:
    fill(store, RECORDS, [])
    add_to_sums(store)
    with connect(store) as db:
        db.run(
            "UPDATE rollups SET requests = 1, surcharge_rest = surcharge_rest + 1 WHERE span = 'hour' AND requests = 2"
        )

    found = run(store, "verify")
    document = json.loads(run(store, "verify", "--format", "json").stdout)

    assert found.exit_code == 1
    assert found.stdout == (
        "2026-03-02T10:00:00.000Z rollups hour: project_id=project-a, room=lab, participant=ada, provider=openai, "
        "model=gpt-5.4-2026-03-05, endpoint=/v1/chat/completions, basis=reported: requests 1 in the sum, 2 in the "
        "records, difference -1; surcharge 0.000225000001 in the sum, 0.000225000000 in the records, difference "
        "0.000000000001\n"
    )
    remedy = "tornado-proxy ledger rollup --rebuild --since 2026-03-02 --until 2026-03-03"
    assert found.stderr == f"1 sum differs from the records of 2 days, 3 records, 0.007087500000 USD; run {remedy}\n"
    assert document["remedy"] == remedy
    (difference,) = document["differences"]
    assert difference["figures"]["requests"] == {"sum": "1", "records": "2", "difference": "-1"}
    assert run(store, "verify", "--since", "2026-03-03").exit_code == 0
    assert run(store, *remedy.split()[2:]).exit_code == 0
    assert run(store, "verify").stdout == "ok: 2 days, 3 records, 0.007087500000 USD\n"


def test_sums_that_grow_while_they_are_verified_do_not_differ(store: LedgerUnderTest) -> None:
    fill(store, RECORDS, [])
    add_to_sums(store)
    days = verify_sums(make_backend(store.address), "", END_OF_TIME)

    first = next(days)
    fill(store, [make_record(make_intent(f"later_{number}")) for number in range(3)], [])
    add_to_sums(store)

    assert (first.records, list(first.differences)) == (2, [])
    assert [(day.records, list(day.differences)) for day in days] == [(1, [])]
    assert [day.records for day in verify_sums(make_backend(store.address), "", END_OF_TIME)] == [5, 1]


def test_sums_that_an_earlier_version_left_behind_are_not_verified(store: LedgerUnderTest) -> None:
    fill(store, RECORDS, [])
    add_to_sums(store)
    with connect(store) as db:
        db.run("UPDATE cursors SET position = '1.0' WHERE name = 'rollups.items'")

    with pytest.raises(LedgerUnavailable, match=r"some sums lack records .* run tornado-proxy ledger rollup"):
        find_differences(store)


def test_server_adds_nothing_and_does_not_wait_while_sums_are_made_again(postgres_address: PostgresAddress) -> None:
    store = LedgerUnderTest(postgres_address, fsync=False)
    fill(store, RECORDS, [])
    add_to_sums(store)
    dialect = make_backend(store.address).dialect
    with connect(store) as db, connect(store) as server:
        with db.transaction():
            lock_cursors(db, dialect)
            fill(store, [make_record(make_intent("later"))], [])
            assert roll_up(server, dialect, waits=False) is False
            (position,) = server.fetch_rows("SELECT position FROM cursors WHERE name = 'rollups'")
            assert position == ("3.0",)
        roll_up(server, dialect, waits=False)
        assert server.fetch_rows("SELECT position FROM cursors WHERE name = 'rollups'") != [position]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["verify", "--alone"], "name their folder with --to"),
        (["verify", "--to", "archive", "--since", "2026-03-02"], "leave them out with --to"),
        (["rollup", "--since", "2026-03-02"], "select the days of --rebuild"),
    ],
)
def test_options_that_have_no_effect_are_refused(words: list[str], message: str) -> None:
    refused = CliRunner().invoke(main, ["ledger", *words])

    assert (refused.exit_code, message in refused.stderr) == (2, True)
