"""Secret references, `{env: NAME}` or `{file: PATH}`, to secrets.  The other file on this floor that reads disk.

A faulty reference is often the secret itself, pasted where its name belongs.  So no fault repeats a file's name, nor a
variable's name that is not in the capitals that such names are written in.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tornado_proxy.config.findings import Findings
from tornado_proxy.domain.document import Document
from tornado_proxy.domain.document import Path as DocumentPath
from tornado_proxy.domain.identity import Secret

#: Bytes of a secret file; keys have some 200.
_MAX_SECRET_BYTES = 64 * 1024

_SHOWN_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")

#: What can stand in a header and in a written API key: printable ASCII without blanks.
_ONE_WORD = re.compile(r"[!-~]+")


#: The members that are references.
SECRET_KEYS = frozenset({"api_key", "secret", "password"})

#: Secrets by the path of their reference.
Secrets = Mapping[DocumentPath, Secret]


def read_secrets(document: Document, below: DocumentPath, findings: Findings) -> Secrets:
    """The secrets of every sound reference that stands below `below`; what cannot be had becomes a fault.

    Relative paths start at the document's folder.  White space around a secret is not part of it: files end in a
    line end, and copied keys in a blank.
    """
    found = {}
    for path, reference in _references(document.content, ()):
        if path[: len(below)] == below and not findings.has_fault(document, path):
            secret = _Reader(document, findings).read(reference, path)
            if secret is not None:
                found[path] = secret
    return found


def _references(value: object, path: DocumentPath) -> Iterator[tuple[DocumentPath, Mapping[str, object]]]:
    members: Iterable[tuple[str | int, object]] = ()
    if isinstance(value, dict):
        members = value.items()
    elif isinstance(value, list):
        members = enumerate(value)
    for key, member in members:
        if key in SECRET_KEYS and isinstance(member, dict):
            yield (*path, key), member
        else:
            yield from _references(member, (*path, key))


class _Reader:
    """Resolves references of one document."""

    def __init__(self, document: Document, findings: Findings) -> None:
        self._document = document
        self._folder = Path(document.file).parent
        self._findings = findings

    def read(self, reference: Mapping[str, object], path: DocumentPath) -> Secret | None:
        """The secret behind `reference`, which stands at `path`; None, and a fault, where there is none."""
        if "env" in reference:
            text, problem = _read_environment(str(reference["env"]))
        else:
            text, problem = self._read_file(self._folder / str(reference["file"]), (*path, "file"))
        secret = text.strip()
        if not problem and not _ONE_WORD.fullmatch(secret):
            problem = "the secret must be one word of printable ASCII"
        if problem:
            self._findings.add(self._document, path, problem)
            return None
        return Secret(secret)

    def _read_file(self, file: Path, path: DocumentPath) -> tuple[str, str]:
        """Text and "", or "" and a problem."""
        try:
            with file.open("rb") as opened:
                mode = os.fstat(opened.fileno()).st_mode
                data = opened.read(_MAX_SECRET_BYTES + 1)
            text = data.decode()
        except OSError as error:
            return "", f"the file cannot be read: {error.strerror} (relative paths start at {self._folder})"
        except UnicodeDecodeError:
            return "", "the file is not text"
        if stat.S_ISREG(mode) and mode & stat.S_IWOTH:
            return "", "the file can be written by every user of this machine; chmod o-w it"
        # Secrets that a container gets as files are readable by all there: no reason to keep a server from starting.
        if stat.S_ISREG(mode) and mode & stat.S_IROTH:
            self._findings.warnings.append(
                self._document.fault(path, "the file can be read by every user of this machine")
            )
        if len(data) > _MAX_SECRET_BYTES:
            return "", f"the file is larger than {_MAX_SECRET_BYTES} bytes"
        return text, "" if text.strip() else "the file is empty"


def _read_environment(name: str) -> tuple[str, str]:
    shown = name if _SHOWN_NAME.fullmatch(name) else "of this name (not shown: it could be a secret)"
    text = os.environ.get(name)
    if text is None:
        return "", f"environment variable {shown} is not set"
    return text, "" if text.strip() else f"environment variable {shown} is empty"
