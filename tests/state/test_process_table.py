"""The rows of the server processes, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.state.conftest import MakeStore
from tornado_proxy.state import process_table
from tornado_proxy.state.process_table import ServerProcess

NOW = datetime(2026, 3, 14, 10, 30, tzinfo=UTC)


def test_process_sees_the_last_row_of_each_other_one(make_store: MakeStore) -> None:
    first, second = make_store(), make_store()
    later = ServerProcess("one", NOW + timedelta(seconds=1), watches=True, running='{"listed":[]}')
    with first.writing() as db:
        process_table.write(db, ServerProcess("one", NOW))
        process_table.write(db, later)
    with second.writing() as db:
        process_table.write(db, ServerProcess("two", NOW))

    with second.reading() as db:
        assert process_table.list_others(db, "two", NOW) == [later]
        assert process_table.list_others(db, "two", NOW + timedelta(seconds=2)) == []
    with first.reading() as db:
        assert process_table.list_others(db, "one", NOW) == [ServerProcess("two", NOW)]
    assert second.read_generation() == 0


def test_rows_of_ended_and_of_killed_processes_are_deleted(make_store: MakeStore) -> None:
    store = make_store()
    with store.writing() as db:
        for number, name in enumerate(("killed", "ended", "running")):
            process_table.write(db, ServerProcess(name, NOW + timedelta(seconds=number)))
        process_table.delete(db, "ended")
        process_table.delete_old(db, NOW + timedelta(seconds=1))
    with store.reading() as db:
        assert [other.id for other in process_table.list_others(db, "", NOW)] == ["running"]
