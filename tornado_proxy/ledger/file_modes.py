"""The mode of the ledger's files: their owner alone may read and write them, because they say who asked what.

An operator can widen the mode of a file with chmod; it stays, and SQLite gives it to the files beside a database.
Folders follow the umask.
"""

from __future__ import annotations

import os
from pathlib import Path

MODE = 0o600


def create_private(path: str | Path, flags: int = os.O_RDWR) -> int:
    """Open `path` with `flags`, and create it if it is missing; return the descriptor, which children do not inherit.

    Also an opener for Path.open().
    """
    return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, MODE)
