"""Scratch files hold rows on the disk, and leave nothing behind whenever their process dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tornado_proxy.ledger.database import StoreError
from tornado_proxy.ledger.sqlite.scratch_file import open_scratch_file

#: Bytes of the rows, more than SQLite keeps in memory.
ROWS_BYTES = 10_000_000

FILL = """
import sys
from tornado_proxy.ledger.sqlite.scratch_file import open_scratch_file
with open_scratch_file() as scratch:
    scratch.run_script("CREATE TABLE rows (content);")
    with scratch.transaction():
        for _ in range(int(sys.argv[1]) // 10_000):
            scratch.run("INSERT INTO rows VALUES (randomblob(10000))")
    print("filled", flush=True)
    sys.stdin.read()
"""


def find_deleted_files(process: subprocess.Popen[bytes], folder: Path) -> list[int]:
    """Return the sizes of the files of a folder that a process has open although they have been deleted."""
    descriptors = list(Path(f"/proc/{process.pid}/fd").iterdir())
    return [
        descriptor.stat().st_size
        for descriptor in descriptors
        if (name := os.readlink(descriptor)).startswith(str(folder)) and name.endswith("(deleted)")
    ]


def test_killed_process_leaves_no_scratch_file(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "SQLITE_TMPDIR": ""}
    with subprocess.Popen(
        [sys.executable, "-c", FILL, str(ROWS_BYTES)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"filled\n"

        assert max(find_deleted_files(process, tmp_path)) > ROWS_BYTES / 2  # the rows are not in memory
        assert list(tmp_path.iterdir()) == []
        process.send_signal(signal.SIGKILL)

    assert process.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_queries_of_a_scratch_file_may_run_side_by_side() -> None:
    with open_scratch_file() as scratch:
        scratch.run_script("CREATE TABLE numbers (number);")
        with scratch.transaction():
            for number in range(3):
                scratch.run("INSERT INTO numbers VALUES (?)", (number,))
        sql = "SELECT number FROM numbers ORDER BY number"

        pairs = list(zip(scratch.read(sql, ()), scratch.read(sql, ()), strict=True))

    assert pairs == [((0,), (0,)), ((1,), (1,)), ((2,), (2,))]


def test_fault_of_a_scratch_file_names_the_variable_of_its_folder() -> None:
    with open_scratch_file() as scratch, pytest.raises(StoreError, match="TMPDIR"):
        scratch.run("SELECT * FROM missing")
