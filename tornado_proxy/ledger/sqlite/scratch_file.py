"""A temporary SQLite file, so that memory is bounded however many rows there are."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tornado_proxy.ledger.database import Backend, Database
from tornado_proxy.ledger.sqlite.backend import SqliteBackend


@contextlib.contextmanager
def open_scratch_file() -> Iterator[tuple[Backend, Database]]:
    """Yield an empty file and a connection to it; remove the file at the end."""
    with tempfile.TemporaryDirectory(prefix="tornado-proxy-") as folder:
        backend = SqliteBackend(Path(folder) / "scratch.db", fsync=False)
        with contextlib.closing(backend.connect(create=True, is_brief=True)) as db:
            yield backend, db
