"""The default ledger: one SQLite file, which several processes of one machine may share."""

from __future__ import annotations

from pathlib import Path

from tornado_proxy.ledger.reports.usage_reader_thread import UsageReaderThread
from tornado_proxy.ledger.sqlite.database import SqliteFile
from tornado_proxy.ledger.writer.group_commit import GroupCommitLedger
from tornado_proxy.ledger.writer.process_locks import ProcessLocks
from tornado_proxy.ledger.writer.store import Opening


class SqliteLedger(GroupCommitLedger):
    """A Ledger in one SQLite file.  `fsync`: what is durable survives loss of power too."""

    def __init__(self, path: Path, *, fsync: bool = False) -> None:
        files = ProcessLocks(path)
        opening = Opening(
            name=str(path),
            connect=SqliteFile(path, fsync=fsync).connect,
            files=files,
            liveness=lambda _: files,
        )
        # A log line is as durable as a commit that is not flushed.  A flush takes the disk's time, away from the loop.
        super().__init__(opening, UsageReaderThread(path), logs_intents=not fsync)
