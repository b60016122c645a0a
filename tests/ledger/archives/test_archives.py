"""Archives hold what the ledger has, tampering is found, and pruning loses no amount, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.ledger.conftest import LedgerUnderTest, open_ledger, open_test_database
from tests.ledger.reports.test_rollup_query import fill, make_random_record, settle
from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.cli import main
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.domain.record import RequestRecord, Settlement
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.archives.archiving import archive_records, verify_archives
from tornado_proxy.ledger.archives.files import ArchiveError, ChainLink, read_chain, read_file
from tornado_proxy.ledger.archives.pruning import Pruned, prune_records
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.changes import find_end, follow
from tornado_proxy.ledger.database import Backend, StoreError
from tornado_proxy.ledger.reports.record_sums import sum_records
from tornado_proxy.ledger.reports.records_page import RecordsQuery
from tornado_proxy.ledger.reports.records_query import UsageFilter
from tornado_proxy.ledger.reports.usage_reader_thread import UsageReaderThread
from tornado_proxy.ledger.sums.rebuild import catch_up, rebuild
from tornado_proxy.ledger.sums.rollups import roll_up

BEFORE = "2026-03-02"

#: Questions whose answers must not change.
QUESTIONS = [
    (UsageFilter(), ["project", "model", "basis"]),
    (UsageFilter(until="2026-03-01T00:00:00.000Z"), ["day", "participant"]),
    (UsageFilter(since="2026-02-28T05:00:00.000Z", project_id="project-a"), ["label.team", "endpoint"]),
]


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerUnderTest:
    return open_test_database(request, tmp_path)


def write_random_records(store: LedgerUnderTest) -> None:
    """Write 200 records of four days; half of the pending ones are settled."""
    chance = random.Random(3)
    # In the order of time, as servers write them: the last record of a ledger is not pruned.
    records = sorted(
        (make_random_record(number, chance) for number in range(200)), key=lambda each: each.intent.started_at
    )
    pending = [record for record in records if record.basis is Basis.PENDING]
    fill(store, records, [settle(record, chance) for record in pending[::2]])
    write_and_close(store)  # the files of the process that fill() has let die


def archive(backend: Backend, folder: Path, before: str = BEFORE) -> list[ChainLink]:
    return archive_records(backend, before, folder, lambda _: None)


def count(backend: Backend, table: str) -> int:
    with backend.read() as read:
        return int(next(iter(read(f"SELECT count(*) FROM {table}", ())))[0])  # noqa: S608  # a name of the test


def ask(backend: Backend) -> list[object]:
    return [sum_records(backend, which, groups) for which, groups in QUESTIONS]


def test_pruned_records_are_in_archives_and_their_amounts_in_every_sum(store: LedgerUnderTest, tmp_path: Path) -> None:
    write_random_records(store)
    backend, folder = make_backend(store.address), tmp_path / "archive"
    before, records = ask(backend), count(backend, "records")

    written = archive(backend, folder)
    assert archive(backend, folder) == []
    archived = sum(link.records for link in written)
    assert verify_archives(folder, backend).records == archived
    assert prune_records(backend, BEFORE, folder) == Pruned(archived, 0)

    assert count(backend, "records") == records - archived
    assert 100 < archived < records
    # What is left of that time is pending, or later.
    with backend.read() as read:
        left = list(read("SELECT DISTINCT basis FROM records WHERE started_at < ?", (BEFORE,)))
    assert [basis for (basis,) in left] == ["pending"]
    assert ask(backend) == before
    verify_archives(folder, backend)
    with contextlib.closing(backend.connect(create=False)) as db:
        rebuild(db, backend.dialect)
        assert not roll_up(db, backend.dialect)
    assert ask(backend) == before
    assert prune_records(backend, BEFORE, folder) == Pruned(0, archived)


def test_archive_has_every_column_of_a_record_and_of_its_settlement(store: LedgerUnderTest, tmp_path: Path) -> None:
    write_random_records(store)
    backend = make_backend(store.address)

    chain = archive(backend, tmp_path / "archive")

    archived = {
        one["record"]["request_id"]: one
        for link in chain
        for one in read_file(tmp_path / "archive", link)
        if one["record"]
    }
    with backend.read() as read:
        for request_id, total in read(
            "SELECT request_id, total FROM bills WHERE basis <> 'pending' AND seq IS NOT NULL", ()
        ):
            if request_id in archived:
                one = archived[request_id]
                assert (one["settlement"] or one["record"] or {})["total"] == total
    assert all(set(one["record"] or {}) >= {"seq", "usage", "line_items", "traceparent"} for one in archived.values())
    assert any(one["settlement"] for one in archived.values())


def test_records_stay_append_only_after_pruning(store: LedgerUnderTest, tmp_path: Path) -> None:
    write_random_records(store)
    backend = make_backend(store.address)
    archive(backend, tmp_path / "archive")
    prune_records(backend, BEFORE, tmp_path / "archive")

    with contextlib.closing(backend.connect(create=False)) as db:
        for table in ("records", "settlements"):
            with pytest.raises((StoreError, Exception), match="append-only"), db.transaction():
                db.run(f"DELETE FROM {table}")  # noqa: S608  # a name of the test


def test_request_that_is_settled_after_it_was_pending_is_archived_then(store: LedgerUnderTest, tmp_path: Path) -> None:
    chance = random.Random(4)
    records = [make_random_record(number, chance) for number in range(40)]
    pending = next(record for record in records if record.basis is Basis.PENDING)
    fill(store, records, [])
    backend, folder = make_backend(store.address), tmp_path / "archive"
    archive(backend, folder, "2027-01-01")
    fill(store, [make_record(make_intent("later"))], [settle(pending, chance)])

    day = f"{pending.intent.started_at:%Y-%m-%d}"
    assert [(link.file, link.records) for link in archive(backend, folder, "2026-03-02")] == [(f"{day}.2.jsonl.gz", 1)]


def test_question_that_needs_pruned_records_is_refused(store: LedgerUnderTest, tmp_path: Path) -> None:
    write_random_records(store)
    backend = make_backend(store.address)
    archive(backend, tmp_path / "archive")
    prune_records(backend, BEFORE, tmp_path / "archive")

    for which, groups in (
        (UsageFilter(), ["request_kind"]),
        (UsageFilter(since="2026-02-28T05:30:00.000Z"), ["model"]),
        (UsageFilter(since="2026-02-28T05:00:00.000Z"), ["session"]),
        (UsageFilter(upstream_request_id="t"), ["model"]),
    ):
        with pytest.raises(
            LedgerUnavailable, match="records before 2026-03-02T00:00:00.000Z are in archives".replace(".", r"\.")
        ):
            sum_records(backend, which, groups)
    assert sum_records(backend, UsageFilter(since="2026-03-02T00:30:00.000Z"), ["request_kind"])
    assert sum_records(backend, UsageFilter(since="2026-02-28T00:00:00.000Z"), ["session"])


def test_list_that_needs_pruned_records_is_refused(store: LedgerUnderTest, tmp_path: Path) -> None:
    write_random_records(store)
    backend = make_backend(store.address)
    archive(backend, tmp_path / "archive")
    prune_records(backend, BEFORE, tmp_path / "archive")

    async def list_since(since: str) -> int:
        reader = UsageReaderThread(backend)
        try:
            return len(await reader.list_records(RecordsQuery(UsageFilter(since=since), 500)))
        finally:
            reader.close()

    with pytest.raises(LedgerUnavailable, match="are in archives"):
        asyncio.run(list_since("2026-03-01T00:00:00.000Z"))
    assert asyncio.run(list_since("2026-03-02T00:00:00.000Z"))


def test_records_that_a_program_has_not_read_are_not_pruned(store: LedgerUnderTest, tmp_path: Path) -> None:
    write_random_records(store)
    backend, folder = make_backend(store.address), tmp_path / "archive"
    archive(backend, folder)
    with contextlib.closing(backend.connect(create=False)) as db:
        db.run("INSERT INTO cursors (name, position, moved_at) VALUES ('otlp', '3.0', '')")

    with pytest.raises(ArchiveError, match="the cursor otlp has not read the records yet"):
        prune_records(backend, BEFORE, folder)


def test_settlements_that_a_program_has_not_read_are_not_pruned(store: LedgerUnderTest, tmp_path: Path) -> None:
    """The program has read each record, and was stopped before the settlement of one."""
    record = make_record(make_intent("r1"), basis=Basis.PENDING)
    write_and_settle(store, [record, make_record(make_intent("last"))], settle(record, random.Random(1)))
    backend, folder = make_backend(store.address), tmp_path / "archive"
    archive(backend, folder, "2026-03-03")
    with contextlib.closing(backend.connect(create=False)) as db:
        db.run("INSERT INTO cursors (name, position, moved_at) VALUES ('push', '2.0', '')")

        with pytest.raises(ArchiveError, match="the cursor push has not read the records yet"):
            prune_records(backend, "2026-03-03", folder)

        db.run("UPDATE cursors SET position = '2.1' WHERE name = 'push'")
    assert prune_records(backend, "2026-03-03", folder) == Pruned(1, 1)  # the last record stays


def test_numbers_of_pruned_records_and_settlements_are_not_used_again(store: LedgerUnderTest, tmp_path: Path) -> None:
    """Cursors would be after the records and settlements that take them, and sums and exports would miss these."""
    chance = random.Random(1)
    old, later = (make_record(make_intent(name), basis=Basis.PENDING) for name in ("old", "later"))
    write_and_settle(store, [old, make_record(make_intent("last"))], settle(old, chance))
    backend, folder = make_backend(store.address), tmp_path / "archive"
    archive(backend, folder, "2026-03-03")
    position = find_end(backend)
    prune_records(backend, "2026-03-03", folder)
    assert list(follow(backend, position)) == []

    write_and_settle(store, [later], settle(later, chance))
    with contextlib.closing(backend.connect(create=False)) as db:
        catch_up(db, backend.dialect)

    changes = [change for batch in follow(backend, position) for change in batch.changes]
    assert [(change.kind.value, change.row["request_id"]) for change in changes] == [
        ("record", "later"),
        ("settlement", "later"),
    ]
    (by_sums,) = sum_records(backend, UsageFilter(), ["project"])
    assert (by_sums.requests, by_sums.pending) == (3, 0)


def write_and_settle(store: LedgerUnderTest, records: list[RequestRecord], settlement: Settlement) -> None:
    async def run() -> None:
        async with open_ledger(store.make, records) as ledger:
            await ledger.settle(settlement)

    asyncio.run(run())


def test_records_in_the_files_of_a_dead_process_are_not_pruned(tmp_path: Path) -> None:
    """The next start writes them to the ledger again, and nothing would tell that they are in the sums already."""
    store = LedgerUnderTest(tmp_path / "ledger.db", fsync=False)
    fill(store, [make_record(make_intent("r1")), make_record(make_intent("last"))], [])
    backend, folder = make_backend(store.address), tmp_path / "archive"
    archive(backend, folder, "2026-03-03")

    with pytest.raises(ArchiveError, match=r"a process that has died left files .* start the server once"):
        prune_records(backend, "2026-03-03", folder)

    write_and_close(store)
    assert prune_records(backend, "2026-03-03", folder) == Pruned(1, 1)
    write_and_close(store)
    assert sorted(str(record["request_id"]) for record in store.records()) == ["last", "lost_r1"]


def write_and_close(store: LedgerUnderTest) -> None:
    """Start a server, which writes the files of dead processes to the ledger, and stop it."""

    async def run() -> None:
        async with open_ledger(store.make, []):
            pass

    asyncio.run(run())


def rewrite(path: Path, old: bytes, new: bytes) -> None:
    content = gzip.decompress(path.read_bytes())
    assert old in content
    path.write_bytes(gzip.compress(content.replace(old, new), mtime=0))


@pytest.mark.parametrize("fault", ["changed", "missing", "added", "line removed", "line changed", "cut"])
def test_tampering_is_found_and_nothing_is_pruned(tmp_path: Path, fault: str) -> None:
    store = LedgerUnderTest(tmp_path / "ledger.db", fsync=False)
    write_random_records(store)
    backend, folder = make_backend(store.address), tmp_path / "archive"
    links = archive(backend, folder)
    chain, path = folder / "chain.jsonl", folder / links[1].file
    lines = chain.read_text().splitlines(keepends=True)
    if fault == "changed":
        rewrite(path, b'"provider": "openai"', b'"provider": "other!"')
    elif fault == "missing":
        path.unlink()
    elif fault == "added":
        path.with_name("2026-02-01.jsonl.gz").write_bytes(path.read_bytes())
    elif fault == "line removed":
        chain.write_text("".join(lines[:1] + lines[2:]))
    elif fault == "line changed":
        chain.write_text(
            "".join(lines[:1]) + json.dumps({**json.loads(lines[1]), "records": 1}) + "\n" + "".join(lines[2:])
        )
    else:
        # The last two files and their lines are gone together: only the ledger knows.
        for link in links[-2:]:
            (folder / link.file).unlink()
        chain.write_text("".join(lines[:-2]))

    with pytest.raises(ArchiveError):
        verify_archives(folder, backend)
    if fault != "added":
        with pytest.raises(ArchiveError):
            prune_records(backend, BEFORE, folder)
        assert count(backend, "records") == 200


def test_archive_continues_after_a_crash_between_the_file_and_the_ledger(tmp_path: Path) -> None:
    store = LedgerUnderTest(tmp_path / "ledger.db", fsync=False)
    write_random_records(store)
    backend, folder = make_backend(store.address), tmp_path / "archive"
    links = archive(backend, folder)
    with contextlib.closing(backend.connect(create=False)) as db:
        db.run("UPDATE meta SET value = ? WHERE key = 'archive_head'", (links[-2].hash,))

    assert archive(backend, folder) == []
    assert len(read_chain(folder)) == len(links)


def test_commands_archive_verify_and_prune(tmp_path: Path) -> None:
    store = LedgerUnderTest(tmp_path / "ledger.db", fsync=False)
    write_random_records(store)
    options = ["--ledger", f"sqlite:///{store.address}", "--to", str(tmp_path / "archive")]

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(main, ["ledger", *arguments, *options])
        assert result.exit_code == 0, result.output
        return result.stdout.splitlines()[-1]

    archived = run("archive", "--before", BEFORE).removeprefix("ok: 3 new files, ")
    assert run("verify").startswith(f"ok: 3 files, {archived}, ")
    assert run("verify", "--alone") == run("verify")
    assert run("prune", "--before", BEFORE) == f"ok: {archived} removed, 0 archived ones not in the ledger or different"
    rolled = CliRunner().invoke(main, ["ledger", "rollup", "--rebuild", *options[:2]])
    assert rolled.output.startswith("ok: ")
    late = CliRunner().invoke(main, ["ledger", "prune", "--before", "2999-01-01", *options])
    assert late.exit_code == 2
    assert "records stay for 35 days" in late.output
