"""`tornado-proxy ledger copy`: an SQLite ledger becomes one in PostgreSQL, with every figure and number."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from click.testing import Result

from tests.cli.rated_ledger import run
from tests.harness import PROJECT, write_config
from tests.ledger.sample_records import CALLER, make_intent, make_record
from tornado_proxy.cli.options.config_lookup import find_ledger
from tornado_proxy.domain.cost import Cost
from tornado_proxy.domain.record import Settlement
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.archives.archiving import archive_records
from tornado_proxy.ledger.archives.pruning import prune_records
from tornado_proxy.ledger.backends import make_backend, make_ledger
from tornado_proxy.ledger.copying import CopyError, copy_ledger
from tornado_proxy.ledger.database import Read
from tornado_proxy.ledger.sqlite.backend import SqliteBackend

NOW = datetime.now(UTC).replace(microsecond=0)
OLD = NOW - timedelta(days=60)

USAGE = ("usage", "--format", "jsonl")
EVENTS = ("export", "events")


def write_ledger(path: Path) -> None:
    """Write records, a settled and a pending one, one of a process that died, and prune an old one."""
    settled = Cost((), Decimal("0.25"), Decimal("0.05"), Decimal("0.3"))

    async def write() -> None:
        ledger = make_ledger(path)
        await ledger.open()
        for request_id, basis in (("req_old", Basis.REPORTED), ("req_1", Basis.REPORTED), ("req_2", Basis.PENDING)):
            intent = make_intent(request_id, caller=CALLER, started_at=OLD if request_id == "req_old" else NOW)
            await ledger.begin(intent)
            await ledger.finish(make_record(intent, basis=basis))
        await ledger.settle(Settlement("req_2", None, basis=Basis.REPORTED, cost=settled, settled_at=NOW))
        intent = make_intent("req_3", caller=CALLER, started_at=NOW)
        await ledger.begin(intent)
        await ledger.finish(make_record(intent, basis=Basis.PENDING))
        await ledger.close()

    asyncio.run(write())
    with closing(sqlite3.connect(path)) as db, db:
        lost = ("req_lost", "dead", CALLER.project_id, f"{NOW:%Y-%m-%dT%H:%M:%S.000Z}", f"{NOW:%Y-%m-%dT%H:%M:%S.000Z}")
        db.execute("INSERT INTO intents (request_id, writer, project_id, started_at, lost_at) VALUES (?,?,?,?,?)", lost)
    assert run("ledger", "rollup", "--ledger", f"sqlite:///{path}").exit_code == 0
    before = f"{OLD + timedelta(days=1):%Y-%m-%d}"
    archive_records(make_backend(path), before, path.parent / "archive", lambda _: None)
    assert prune_records(make_backend(path), before, path.parent / "archive").removed == 1


def configure(folder: Path, url: str) -> Path:
    folder.mkdir()
    return write_config(folder, "http://127.0.0.1:9", ledger={"url": url, **_journal(folder, url)})


def _journal(folder: Path, url: str) -> dict[str, str]:
    return {} if url.startswith("sqlite") else {"journal": str(folder / "journal")}


def copy(source: Path, config: Path) -> Result:
    return run("ledger", "copy", "--from", source, "--config", config)


@pytest.fixture
def old_config(tmp_path: Path) -> Path:
    """Return the configuration of an SQLite ledger with a stop and an access key."""
    config = configure(tmp_path / "old", "sqlite:///ledger.db")
    write_ledger(config.with_name("ledger.db"))
    assert run("stop", "--participant", "eve", "--config", config).exit_code == 0
    assert run("access-key", "create", "ci", "--project", PROJECT, "--config", config).exit_code == 0
    return config


def test_copied_ledger_has_each_figure_and_number(old_config: Path, tmp_path: Path, postgres_database: str) -> None:
    config = configure(tmp_path / "new", postgres_database)

    copied = copy(old_config.with_name("ledger.db"), config)

    assert (copied.exit_code, copied.stderr) == (0, "")
    assert copied.stdout.endswith("ok: 3 records\n")
    for command in (
        USAGE,
        EVENTS,
        ("usage", "--group-by", "day,project,participant,model", "--format", "csv"),
        ("ledger", "verify"),
        ("ledger", "verify", "--to", str(tmp_path / "old" / "archive")),
        ("stop", "--list", "--format", "json"),
        ("access-key", "list", "--format", "json"),
    ):
        old, new = (run(*command, "--config", path) for path in (old_config, config))
        # Of records that began at the same time, a lost one is first in SQLite and last in PostgreSQL.
        assert sorted(new.stdout.splitlines()) == sorted(old.stdout.splitlines()), command
        assert (new.exit_code, new.stderr) == (old.exit_code, old.stderr), command
        assert old.exit_code == 0, command

    cursor = run(*EVENTS, "--config", config).stderr.strip().removeprefix("cursor ")
    write_another(config, "req_old", OLD)  # a pruned one: ignored
    write_another(config, "req_4", NOW)
    (event,) = run(*EVENTS, "--since", cursor, "--config", config).stdout.splitlines()
    assert '"id":"req_4"' in event


def test_settlement_without_a_change_gets_one_after_the_copied_changes(
    old_config: Path, tmp_path: Path, postgres_database: str
) -> None:
    source = old_config.with_name("ledger.db")
    with closing(sqlite3.connect(source)) as db, db:
        db.execute("DELETE FROM changes")
        db.execute("INSERT INTO changes (seq, request_id, kind) VALUES (1, 'req_lost', 'lost')")

    assert copy(source, configure(tmp_path / "new", postgres_database)).exit_code == 0

    with psycopg.connect(postgres_database) as connection:
        changes = connection.execute("SELECT * FROM tornado_proxy.changes ORDER BY seq").fetchall()
    assert changes == [(1, "req_lost", "lost"), (2, "req_2", "settlement")]


def write_another(config: Path, request_id: str, at: datetime) -> None:
    """Write one more record to the PostgreSQL ledger of a configuration."""

    async def write() -> None:
        ledger = make_ledger(find_ledger(config, None))
        await ledger.open()
        intent = make_intent(request_id, caller=CALLER, started_at=at)
        await ledger.begin(intent)
        await ledger.finish(make_record(intent))
        await ledger.close()

    asyncio.run(write())


def test_copy_to_a_ledger_with_rows_changes_nothing(old_config: Path, tmp_path: Path) -> None:
    config = configure(tmp_path / "new", "sqlite:///ledger.db")
    source = old_config.with_name("ledger.db")
    assert copy(source, config).exit_code == 0

    again = copy(source, config)

    assert again.exit_code == 1
    assert again.stderr == f"{config.with_name('ledger.db')}: the table changes has rows; name an empty database\n"
    assert run(*USAGE, "--config", config).stdout == run(*USAGE, "--config", old_config).stdout


def test_ledger_of_a_process_that_runs_or_has_died_is_not_copied(old_config: Path, tmp_path: Path) -> None:
    old_config.with_name("ledger.db-writer-1234").touch()

    refused = copy(old_config.with_name("ledger.db"), configure(tmp_path / "new", "sqlite:///ledger.db"))

    assert refused.exit_code == 1
    assert "end all servers with SIGTERM" in refused.stderr


class FileOpenedMeanwhile(SqliteBackend):
    """The file of a ledger that a server opens while it is copied."""

    @contextmanager
    def read(self, is_over: Callable[[], bool] | None = None, *, snapshot: bool = False) -> Iterator[Read]:
        with super().read(is_over, snapshot=snapshot) as read, asyncio.Runner() as runner:
            ledger = make_ledger(self.files_path)
            runner.run(ledger.open())
            try:
                yield read
            finally:
                runner.run(ledger.close())


def test_copy_of_a_ledger_that_a_server_opens_meanwhile_leaves_nothing(old_config: Path, tmp_path: Path) -> None:
    config = configure(tmp_path / "new", "sqlite:///ledger.db")
    source = old_config.with_name("ledger.db")
    assert run("stop", "--list", "--config", config).exit_code == 0
    target = make_backend(find_ledger(config, None))

    with pytest.raises(CopyError, match="end all servers with SIGTERM"):
        copy_ledger(FileOpenedMeanwhile(source, fsync=False), target)

    assert copy(source, config).exit_code == 0


def test_missing_file_is_not_made(old_config: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing.db"

    refused = copy(missing, old_config)

    assert (refused.exit_code, refused.stderr) == (
        1,
        f"Error: {missing}: there is no such file; name that of the SQLite ledger\n",
    )
    assert not missing.exists()
