"""Lock files tell the processes of one machine which of them live."""

from __future__ import annotations

from pathlib import Path

from tornado_proxy.ledger.writer.process_locks import ProcessLocks


# flock() locks belong to an open file, not to a process: two ProcessLocks of the test lock out each other as two
# processes do.
def register(path: Path) -> ProcessLocks:
    locks = ProcessLocks(path)
    with locks.hold_opening_lock():
        locks.register()
    return locks


def test_registered_process_is_alive_until_it_closes(tmp_path: Path) -> None:
    first, second = register(tmp_path / "ledger.db"), register(tmp_path / "ledger.db")
    assert not second.is_dead(first.writer_id)

    first.close(keep_files=True)

    assert second.is_dead(first.writer_id)
    assert second.list_dead() == [first.writer_id]
    second.close()


def test_process_is_never_dead_for_itself(tmp_path: Path) -> None:
    locks = ProcessLocks(tmp_path / "ledger.db")

    assert not locks.is_dead(locks.writer_id)


def test_writer_without_a_lock_file_is_dead(tmp_path: Path) -> None:
    assert ProcessLocks(tmp_path / "ledger.db").is_dead("0" * 32)


def test_close_deletes_the_files_of_the_process(tmp_path: Path) -> None:
    locks = register(tmp_path / "ledger.db")
    locks.journal_path(locks.writer_id).touch()
    locks.intent_log_path(locks.writer_id, 0).touch()

    locks.close()

    assert [file.name for file in tmp_path.iterdir()] == ["ledger.db-open"]


def test_dead_writer_is_found_by_any_of_its_files(tmp_path: Path) -> None:
    locks = ProcessLocks(tmp_path / "ledger.db")
    locks.journal_path("a" * 32).touch()
    locks.intent_log_path("b" * 32, 3).touch()
    (tmp_path / "other.db-writer-c").touch()

    assert locks.list_dead() == ["a" * 32, "b" * 32]
    assert locks.find_intent_logs("b" * 32) == [locks.intent_log_path("b" * 32, 3)]
    locks.delete_files("a" * 32)
    assert locks.list_dead() == ["b" * 32]


def test_path_with_wildcards_finds_its_own_files_only(tmp_path: Path) -> None:
    starred = ProcessLocks(tmp_path / "ledger*.db")
    ProcessLocks(tmp_path / "ledger1.db").journal_path("a").touch()
    starred.journal_path("b").touch()

    assert starred.list_dead() == ["b"]


def test_opening_lock_may_be_nested_and_makes_the_folder(tmp_path: Path) -> None:
    locks = ProcessLocks(tmp_path / "var" / "ledger.db")

    with locks.hold_opening_lock(), locks.hold_opening_lock():
        locks.register()

    assert (tmp_path / "var" / "ledger.db-open").exists()
    locks.close()


def test_symbolic_link_has_the_locks_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "ledger.db")
    locks = register(tmp_path / "ledger.db")

    assert not ProcessLocks(tmp_path / "link.db").is_dead(locks.writer_id)
    locks.close()


def test_look_for_dead_processes_never_waits_nor_keeps_one_from_starting(tmp_path: Path) -> None:
    looking, starting = ProcessLocks(tmp_path / "ledger.db"), ProcessLocks(tmp_path / "ledger.db")
    dead = ProcessLocks(tmp_path / "ledger.db")
    dead.register()
    assert not looking.has_dead()

    with starting.hold_opening_lock():
        dead.close(keep_files=True)
        assert not looking.has_dead()
        starting.register()

    assert looking.has_dead()
    starting.close()
