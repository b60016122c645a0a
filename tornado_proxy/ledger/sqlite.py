"""The default ledger: one SQLite file, which several processes of one machine may share."""

from __future__ import annotations

from pathlib import Path

from tornado_proxy.ledger.group_commit import GroupCommitLedger
from tornado_proxy.ledger.sqlite_database import SqliteFile
from tornado_proxy.ledger.store import Opening
from tornado_proxy.ledger.usage_reads import UsageReads
from tornado_proxy.ledger.writers import Writers


class SqliteLedger(GroupCommitLedger):
    """A Ledger in one SQLite file.  `fsync`: what is durable survives loss of power too."""

    def __init__(self, path: Path, *, fsync: bool = False) -> None:
        files = Writers(path)
        opening = Opening(
            name=str(path),
            connect=SqliteFile(path, fsync=fsync).connect,
            files=files,
            liveness=lambda _: files,
        )
        # A log line is as durable as a commit that is not flushed.  A flush takes the disk's time, away from the loop.
        super().__init__(opening, UsageReads(path), logs_intents=not fsync)
