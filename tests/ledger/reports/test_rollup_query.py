"""Sums by hour and day give the answers of reading each record, to the last digit, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.conftest import LedgerUnderTest, open_test_database
from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.domain.attribution import Attribution
from tornado_proxy.domain.cost import LineItem
from tornado_proxy.domain.identity import Caller, KeyId
from tornado_proxy.domain.record import RequestRecord, Settlement
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.database import Read
from tornado_proxy.ledger.dialect import Dialect, quote_names
from tornado_proxy.ledger.reports.intervals import Interval
from tornado_proxy.ledger.reports.item_query import can_sum_items, sum_items
from tornado_proxy.ledger.reports.ranked_usage import list_group_rows, read_ranked
from tornado_proxy.ledger.reports.ranking import RankedQuery, rank_usage
from tornado_proxy.ledger.reports.record_sums import can_use_sums, sum_groups, sum_records
from tornado_proxy.ledger.reports.records_page import RecordsQuery, read_page
from tornado_proxy.ledger.reports.records_query import UsageFilter, read_records, select_bills
from tornado_proxy.ledger.reports.usage import Bounds, UsageQuery, UsageResult
from tornado_proxy.ledger.reports.usage_sums import sum_usage
from tornado_proxy.ledger.rows import format_time
from tornado_proxy.ledger.sums.rebuild import rebuild
from tornado_proxy.ledger.sums.rollup_rows import ATTRIBUTE_COLUMNS, COLUMNS, join_amount, split_amount
from tornado_proxy.ledger.sums.rollups import roll_up
from tornado_proxy.pricing.book.calculator import bill

START = datetime(2026, 2, 27, 21, 30, tzinfo=UTC)
HOURS = 80
GROUPS = ["project", "room", "participant", "user", "provider", "model", "endpoint", "basis", "provider_key", "day"]
PROJECTS, PEOPLE, MODELS = ("project-a", "project-b"), ("ada", "bob", None), ("gpt-5.4", "gpt-5.4-mini", None)
ENDPOINTS = ("/v1/chat/completions", "/v1/responses/resp_123456789/cancel", "/v1/responses/resp_987654321/cancel")

#: Short pages that are read of a list; the rest is read as one page, because each page takes 10 ms.
SHORT_PAGES = 20

NO_BOUNDS = Bounds(10**9, float("inf"))


def make_cost(chance: random.Random) -> Any:
    """Return a bill of random amounts with up to 12 decimals, or without any."""
    places = chance.choice([3, 6, 9])
    items = [
        LineItem(
            f"{kind}_tokens",
            Decimal(chance.choice(["1", "20000000000", "0.25", "1.123456789012"])),
            "t",
            Decimal(1),
            chance.choice([None, *[Decimal(chance.randrange(10**6)).scaleb(-places)] * 5]),
            chance.choice(["m", "m", "n"]),
            "h",
        )
        for kind in chance.choices(["input", "output", "cached"], k=chance.choice([0, 1, 2, 2, 9]))
    ]
    return bill(items, chance.choice([Decimal("0.05"), Decimal(0), Decimal("0.333")]))


def make_random_record(number: int, chance: random.Random) -> RequestRecord:
    caller = Caller(
        chance.choice(PROJECTS),
        participant=chance.choice(PEOPLE),
        user=chance.choice(PEOPLE),
        room=chance.choice(PEOPLE),
    )
    intent = make_intent(
        f"req_{number:06d}",
        caller=caller,
        provider=chance.choice(["openai", "anthropic"]),
        endpoint=chance.choice(ENDPOINTS),
        model_requested=chance.choice(MODELS),
        # Whole hours and days too: they are the edges.
        started_at=START
        + timedelta(minutes=30 * chance.randrange(2 * HOURS), milliseconds=chance.choice([0, 0, 1, 999])),
        key=chance.choice([None, KeyId("main", "f" * 12, own=False)]),
        labels=chance.choice([{}, {"team": "red"}, {"team": "blue", "cost": "4711"}]),
        session=chance.choice([None, None, "socket"]),
        annotations=chance.choice([(), (), (("env", "prod"),), (("env", "dev"), ("task", "x"))]),
        attribution=Attribution(
            agent_session=chance.choice([None, "s1", "s2"]), client=chance.choice([None, "codex/1"])
        ),
    )
    return make_record(intent, model=chance.choice(MODELS), basis=chance.choice(list(Basis)), cost=make_cost(chance))


def make_random_question(chance: random.Random) -> tuple[UsageFilter, list[str], Interval | None]:
    times: list[str | None] = [None]
    for _ in range(2):
        at = START + timedelta(minutes=chance.choice([1, 30, 60 * 24]) * chance.randrange(100))
        times.append(format_time(at + timedelta(milliseconds=chance.choice([0, 0, 1]))))
    since, until = chance.choice([None, min(filter(None, times))]), chance.choice([None, max(filter(None, times))])
    which = UsageFilter(
        project_id=chance.choice([None, None, *PROJECTS]),
        participant=chance.choice([None, None, None, "ada"]),
        model=chance.choice([*[None] * 5, "gpt-5.4"]),
        basis=chance.choice([*[None] * 20, *Basis]),
        endpoint=chance.choice([*[None] * 9, *ENDPOINTS]),
        callers=chance.choice([None, None, None, "ada,bob"]),
        agent_session=chance.choice([*[None] * 9, "s1"]),
        since=since,
        until=until,
    )
    groups = chance.sample([*GROUPS, "label.team"], chance.randrange(4))
    if chance.random() < 0.4:
        names = ["agent_session", "client", "session", "annotation.env"]
        groups.append("agent_session" if which.agent_session else chance.choice(names))
    return which, groups, chance.choice([None, *Interval])


def settle(record: RequestRecord, chance: random.Random) -> Settlement:
    at = datetime(2026, 3, 9, tzinfo=UTC)
    return Settlement(record.intent.request_id, "gpt-5.4-other", Basis.REPORTED, make_cost(chance), at)


def fill(store: LedgerUnderTest, records: Sequence[RequestRecord], settlements: Sequence[Settlement]) -> None:
    async def run() -> None:
        ledger = store.make()
        await ledger.open()
        await asyncio.gather(*(ledger.finish(record) for record in records))
        for settlement in settlements:
            await ledger.settle(settlement)
        # A process that has died leaves these.
        await ledger.begin(make_intent(f"lost_{records[0].intent.request_id}", started_at=START + timedelta(hours=5)))
        await ledger.close()

    asyncio.run(run())


def add_to_sums(store: LedgerUnderTest, *, times: int = 1000, limit: int = 100) -> None:
    backend = make_backend(store.address)
    with contextlib.closing(backend.connect(create=False)) as db:
        for _ in range(times):
            if not roll_up(db, backend.dialect, limit):
                return


def compare_answers(store: LedgerUnderTest, chance: random.Random, questions: int) -> None:
    backend, used, own = make_backend(store.address), 0, random.Random(questions)
    for _ in range(questions):
        which, groups, interval = make_random_question(chance)
        by_record = sum_records(backend, which, groups, use_sums=False)
        by_sums = sum_records(backend, which, groups)
        assert by_sums == by_record
        # The same text too: a report prints it.  A difference of sums can have more zeros at its end.
        if not {"agent_session", "client", "session", "annotation.env"} & set(groups):
            assert [str(row) for row in by_sums] == [str(row) for row in by_record]
        grouped = tuple(name for name in groups if name not in ("day", "project"))
        has_attribute = which.agent_session is not None or {"agent_session", "client", "session"} & set(groups)
        told_apart = chance.choice([None, None, ("ada", "gpt-5.4", "s1", "red"), ()])
        query = UsageQuery(
            replace(which, model=None),
            interval,
            grouped,
            model=which.model,
            group_rows=True,
            told_apart=told_apart,
            annotations=() if has_attribute else own.choice([(), (("env", "prod"),), (("env", "dev"), ("task", "x"))]),
        )
        assert can_use_sums(query) is ("resp_" not in (which.endpoint or ""))
        if not can_use_sums(query):
            continue
        sql, values = select_bills(query.columns, query.which, 10**9)
        with backend.read(snapshot=True) as read:
            expected = sum_usage(read(sql, values), query, NO_BOUNDS)
            found = sum_groups(read, query, NO_BOUNDS)
            assert found == expected
            compare_ranking(read, backend.dialect, query, own)
            compare_items(read, query, own)
        used += bool(by_record)
    assert used > questions // 2


def compare_items(read: Read, query: UsageQuery, chance: random.Random) -> None:
    """Compare the sums by kind of line item with those of every record."""
    item_type = chance.choice([None, None, "input_tokens", "pending_requests"])
    groups = tuple(name for name in query.group_by if name not in ("provider", "model"))
    query = replace(query, group_by=groups, model=None, type=item_type, group_rows=False, told_apart=None)
    if can_sum_items(read, query):
        expected = sum_usage(read(*select_bills(query.columns, query.which, 10**9)), query, NO_BOUNDS)
        assert sum_items(read, query, NO_BOUNDS) == expected


def compare_ranking(read: Read, dialect: Dialect, query: UsageQuery, chance: random.Random) -> None:
    """Compare the dearest groups with the ranking of the sums of every record."""
    previous = replace(query.which, since=format_time(START), until=format_time(START + timedelta(hours=40)))
    before = chance.choice([None, None, format_time(START + timedelta(days=2))])
    by_change = query.interval is None and chance.random() < 0.5
    query = replace(query, told_apart=None)
    asked = RankedQuery(query, previous, chance.choice([1, 2, 5, 100]), by_change, chance.choice([1, 5, 100]), before)

    def sum_each(each: UsageQuery) -> UsageResult:
        return sum_usage(read(*select_bills(each.columns, each.which, 10**9)), each, NO_BOUNDS)

    found = read_ranked(read, dialect, asked, lambda each: sum_groups(read, each, NO_BOUNDS))
    groups = query.group_by if query.interval is None else ()
    rows = list_group_rows(sum_each(query))
    earlier = replace(query, which=previous, interval=None, group_by=groups)
    assert found == rank_usage(rows, list_group_rows(sum_each(earlier)), asked)


def compare_lists(store: LedgerUnderTest, chance: random.Random, questions: int) -> None:
    """Compare pages of lists with the records that match, found by reading all."""
    backend, used = make_backend(store.address), 0
    # Records of one time have numbers in the order of their commits, which differs from run to run.
    everything = sorted(read_records(backend, UsageFilter()), key=lambda record: str(record["request_id"]))
    for _ in range(questions):
        names = ("room", "participant", "model", "basis", "provider_key", "endpoint", "agent_session", "session")
        example = chance.choice(everything)
        given = {name: str(example[name] or "none") for name in chance.sample(names, chance.choice([1, 1, 2]))}
        if "model" in given:
            given["model"] = str(example["model"] or example["model_requested"])
        which = replace(make_random_question(chance)[0], participant=None, callers=None)
        retries = chance.choice([None, None, None, "only"])
        which = UsageFilter(**given, since=which.since, until=which.until, retries=retries)
        limit = chance.choice([1, 7, 500])
        with backend.read() as read:
            pages = [page := read_page(read, RecordsQuery(which, limit))]
            while len(page) == limit:
                limit = limit if len(pages) < SHORT_PAGES else 500
                before = (str(page[-1]["started_at"]), str(page[-1]["request_id"]))
                pages.append(page := read_page(read, RecordsQuery(which, limit, before)))
        found = [record["request_id"] for each in pages for record in each]
        expected = sorted(read_records(backend, which), key=lambda row: (row["started_at"], row["request_id"]))
        assert found == [record["request_id"] for record in reversed(expected)]
        used += bool(found)
    assert used > questions // 4


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerUnderTest:
    return open_test_database(request, tmp_path)


def test_bill_of_one_agent_session_has_no_amount_of_another(store: LedgerUnderTest) -> None:
    """The dashboard asks for it by interval, and tells apart the sessions that it shows."""
    sessions = ["s1", "s1", "s2"]
    intents = [
        make_intent(f"r{number}", attribution=Attribution(agent_session=name)) for number, name in enumerate(sessions)
    ]
    fill(store, [make_record(intent) for intent in intents], [])
    add_to_sums(store)
    query = UsageQuery(
        UsageFilter(agent_session="s1"), Interval.DAY, ("agent_session",), group_rows=True, told_apart=("s1",)
    )

    with make_backend(store.address).read(snapshot=True) as read:
        found = sum_groups(read, query, NO_BOUNDS)

    assert [(row.key[-1], row.requests) for row in found.rows] == [("s1", 2)]
    assert found.total == Decimal("0.004725")


def test_answers_from_sums_are_those_of_reading_every_record(store: LedgerUnderTest) -> None:
    chance = random.Random(4)
    records = [make_random_record(number, chance) for number in range(400)]
    pending = [record for record in records[:300] if record.basis is Basis.PENDING]
    fill(store, records[:300], [settle(record, chance) for record in pending[::2]])

    # Nothing is in the sums, some records are, all are; later ones, and settlements of earlier ones, come after that.
    compare_answers(store, chance, 15)
    add_to_sums(store, times=1)
    compare_answers(store, chance, 15)
    compare_lists(store, chance, 10)
    add_to_sums(store)
    compare_answers(store, chance, 15)
    compare_lists(store, chance, 10)
    fill(store, records[300:], [settle(record, chance) for record in pending[1::4]])
    compare_answers(store, chance, 15)
    compare_lists(store, chance, 10)
    add_to_sums(store)
    before = read_sums_table(store)
    backend = make_backend(store.address)
    with contextlib.closing(backend.connect(create=False)) as db:
        rebuild(db, backend.dialect)
    assert read_sums_table(store) == before
    compare_answers(store, chance, 15)


def read_sums_table(store: LedgerUnderTest) -> list[tuple[Any, ...]]:
    """Return the rows of the tables of sums, with the three numbers of each amount as the amount."""
    tables = {"rollups": COLUMNS[:-1], "attribute_sums": ATTRIBUTE_COLUMNS}
    with make_backend(store.address).read() as read:
        rows = [
            row
            for table, columns in tables.items()
            for row in read(f"SELECT {quote_names(columns)} FROM {table} ORDER BY 1, 2, 3, 4", ())  # noqa: S608
        ]
        items = list(read("SELECT * FROM item_sums ORDER BY span, start, key, shape", ()))
    return [(*row[:-6], join_amount(*row[-6:-3]), join_amount(*row[-3:])) for row in rows] + items


def test_running_ledger_adds_its_records_to_the_sums(store: LedgerUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tornado_proxy.ledger.writer.writer_thread._ROLL_UP_S", 0.0)

    async def run() -> None:
        ledger = store.make()
        await ledger.open()
        for number in range(3):
            await ledger.finish(make_record(make_intent(f"r{number}")))
            await asyncio.sleep(0.05)
        await ledger.close()

    asyncio.run(run())

    rows = read_sums_table(store)
    sums = [row for row in rows if len(row) == 17]
    assert {row[0] for row in sums} == {"hour", "day", "hour_all", "day_all"}
    assert sum(int(str(row[14])) for row in sums if row[0] == "day") >= 2
    assert {row[0] for row in rows if len(row) > 17} == {"day", "hour_all", "day_all"}


#: SQL that leaves the sums of the two earlier versions.
_WITHOUT_ITEMS = (
    "DROP TABLE item_sums; DROP TABLE item_shapes; DELETE FROM attribute_sums WHERE name = 'annotations'; "
    "DELETE FROM cursors WHERE name = 'rollups.items'; "
)
_WITHOUT_DETAILS = (
    f"{_WITHOUT_ITEMS} DELETE FROM rollups WHERE span LIKE '%_all'; DROP TABLE attribute_sums; "  # noqa: S608
    "DELETE FROM cursors WHERE name = 'rollups.details';"
)


@pytest.mark.parametrize("script", [_WITHOUT_DETAILS, _WITHOUT_ITEMS], ids=["first version", "second version"])
def test_sums_of_an_earlier_version_are_completed(store: LedgerUnderTest, script: str) -> None:
    chance = random.Random(3)
    fill(store, [make_random_record(number, chance) for number in range(100)], [])
    add_to_sums(store)
    expected = read_sums_table(store)
    with contextlib.closing(make_backend(store.address).connect(create=False)) as db:
        db.run_script(script)
    fill(store, [make_record(make_intent("later"))], [])

    add_to_sums(store, times=1, limit=30)
    # The sums of the earlier version go on, and the new ones begin.
    compare_answers(store, chance, 15)
    add_to_sums(store, limit=30)

    assert len(read_sums_table(store)) > len(expected)
    compare_answers(store, chance, 15)
    compare_lists(store, chance, 10)


@pytest.mark.parametrize("text", ["0", "0.000004725000", "12.5", "-0.1", "-0.000000000001", "123456789.123456789012"])
def test_amount_has_the_same_text_after_it_was_stored_as_numbers(text: str) -> None:
    assert str(join_amount(*split_amount(Decimal(text)))) == str(Decimal(text))


def test_amount_with_more_decimals_than_sums_have_is_refused() -> None:
    with pytest.raises(ValueError, match="13 decimals"):
        split_amount(Decimal("0.0000000000001"))


@pytest.mark.parametrize(
    ("group", "which"),
    [
        pytest.param("request_kind", UsageFilter(), id="group without sums"),
        pytest.param("annotation.task", UsageFilter(client="c"), id="annotation and attribute"),
        pytest.param("model", UsageFilter(room="lab", upstream_request_id="s"), id="filter without sums"),
        pytest.param("client", UsageFilter(session="s"), id="two attributes"),
        pytest.param("model", UsageFilter(since="2026-03-02"), id="time in another form"),
        pytest.param("model", UsageFilter(endpoint="/v1/responses/resp_123456789/cancel"), id="endpoint with an id"),
    ],
)
def test_other_questions_are_answered_from_records(store: LedgerUnderTest, group: str, which: UsageFilter) -> None:
    store.write(make_intent("r1"))
    backend = make_backend(store.address)

    assert sum_records(backend, which, [group]) == sum_records(backend, which, [group], use_sums=False)
    assert not can_use_sums(UsageQuery(which, group_by=(group,), group_rows=True))


def test_postgresql_reads_the_records_after_the_cursor_by_an_index(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """It reads every record if the two parts of the view `bills` differ in a type."""
    store = LedgerUnderTest(request.getfixturevalue("postgres_address"), fsync=False)
    store.write(make_intent("r1"))

    with contextlib.closing(make_backend(store.address).connect(create=False)) as db:
        db.run("SET enable_seqscan = off")  # a table of one record is read as a whole otherwise
        plan = "\n".join(str(row[0]) for row in db.fetch_rows("EXPLAIN SELECT basis FROM bills WHERE seq > 5"))
        lost = "\n".join(str(row[0]) for row in db.fetch_rows("EXPLAIN SELECT basis FROM bills WHERE seq IS NULL"))

    assert "Index Cond: (seq > 5)" in plan
    assert "on records r" not in lost
