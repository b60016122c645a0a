"""A ledger that cannot be opened: the server does not start, and prints one line that says what to do."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import ROOT, run_serve, write_config
from tests.server.ledger_checks import small_disk


def make_garbage(ledger: Path) -> None:
    ledger.write_bytes(b"this is no ledger " * 1000)


def make_other_database(ledger: Path) -> None:
    with contextlib.closing(sqlite3.connect(ledger)) as db:
        db.execute("CREATE TABLE songs (name TEXT)")


def make_newer_version(ledger: Path) -> None:
    with contextlib.closing(sqlite3.connect(ledger, isolation_level=None)) as db:
        db.executescript("CREATE TABLE meta (key, value); CREATE TABLE intents (x); CREATE TABLE records (x);")
        db.execute("INSERT INTO meta VALUES ('schema_version', '99')")


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        pytest.param(make_garbage, "restore a backup, or move it away", id="damaged"),
        pytest.param(make_other_database, "is a database of another program; name another one", id="another program's"),
        pytest.param(make_newer_version, "install the version that wrote it, or a later one", id="a later version's"),
    ],
)
def test_file_that_is_no_ledger_stops_the_start_with_advice(
    make: Callable[[Path], None], advice: str, tmp_path: Path
) -> None:
    make(tmp_path / "ledger.db")

    failed = run_serve(write_config(tmp_path, "http://127.0.0.1:9"))

    assert failed.returncode == 1
    (line,) = failed.stderr.splitlines()
    assert line.startswith(f"the ledger cannot be opened: {tmp_path}/ledger.db: ")
    assert advice in line


def test_read_only_ledger_stops_the_start_with_advice(tmp_path: Path) -> None:
    with small_disk(tmp_path / "var") as disk:
        (disk / "ledger.db").touch()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

        failed = run_serve(write_config(tmp_path, "http://127.0.0.1:9", ledger={"url": "sqlite:///var/ledger.db"}))

    assert failed.returncode == 1
    (line,) = failed.stderr.splitlines()
    assert line.startswith(f"the ledger cannot be opened: {disk}/ledger.db: ")
    assert "Read-only file system" in line
    assert "check owner, mode and free space" in line


def test_missing_postgresql_driver_is_reported_with_the_package_to_install(tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9", ledger={"url": "postgresql://db/ledger"})
    (tmp_path / "psycopg").mkdir()
    (tmp_path / "psycopg" / "__init__.py").write_text("raise ModuleNotFoundError('psycopg')")

    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from tornado_proxy.cli import main; main()"
    failed = subprocess.run(
        [sys.executable, "-c", code, "usage", "--config", str(config)],
        capture_output=True,
        check=False,
        text=True,
        cwd=ROOT,
        timeout=30,
    )

    assert failed.returncode == 1
    assert failed.stderr.splitlines() == [
        "a PostgreSQL ledger needs the driver psycopg: pip install 'tornado-proxy[postgresql]'"
    ]
