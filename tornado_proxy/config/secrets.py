"""Secret references, `{env: NAME}` or `{file: PATH}`, to secrets.  The other file on this floor that reads disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tornado_proxy.domain.document import Document
from tornado_proxy.domain.document import Path as DocumentPath
from tornado_proxy.domain.errors import Fault
from tornado_proxy.domain.identity import Secret

#: Bytes of a secret file; keys have some 200.
_MAX_SECRET_BYTES = 64 * 1024


class SecretReader:
    """Resolves references of one document, collecting faults instead of raising them.

    Relative paths start at the document's folder.  White space around a secret is not part of it: files end in a
    line end, and copied keys in a blank.
    """

    def __init__(self, document: Document, faults: list[Fault]) -> None:
        self._document = document
        self._folder = Path(document.file).parent
        self._faults = faults

    def read(self, reference: Mapping[str, object], path: DocumentPath) -> Secret:
        """The secret behind `reference`, which stands at `path`; an empty one, and a fault, where there is none."""
        if "env" in reference:
            name = str(reference["env"])
            text = os.environ.get(name, "")
            problem = f"environment variable {name} is not set or empty"
        else:
            file = self._folder / str(reference["file"])
            text, problem = _read_file(file)
        if not text.strip():
            self._faults.append(self._document.fault(path, problem))
        return Secret(text.strip())


def _read_file(path: Path) -> tuple[str, str]:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_SECRET_BYTES).decode(), f"file {path} is empty"
    except OSError as error:
        return "", f"file {path} cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        return "", f"file {path} is not text"
