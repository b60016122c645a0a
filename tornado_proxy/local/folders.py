"""The folder of this user's session, local ledger and running proxies; its owner alone can read it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import platformdirs

_FOLDER_MODE = 0o700


#: The ledger of local proxies.
LEDGER_FILE = "ledger.db"


def find_state_folder() -> Path:
    """Return the folder, which may not exist: below XDG_STATE_HOME, or the system's own place."""
    return Path(platformdirs.user_state_path("tornado-proxy", appauthor=False))


def make_state_folder() -> Path:
    """Return the folder, and create it if it is missing.

    Raises:
        OSError: it cannot be created, or its mode not be set.
    """
    folder = find_state_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=_FOLDER_MODE)
    # mkdir() obeys the umask, and the folder may be older.
    folder.chmod(_FOLDER_MODE)
    return folder


def replace_private_file(path: Path, text: str) -> None:
    """Replace a file by one with mode 0600, atomically; it survives a loss of power.

    Raises:
        OSError: the file cannot be written.
    """
    # mkstemp() creates a file with mode 0600, in the same folder because os.replace() cannot move between file systems.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the new name of a file durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
