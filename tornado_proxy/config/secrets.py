"""Resolves references to secrets, `{env: NAME}` or `{file: PATH}`.

An invalid reference is often the secret itself, pasted in place of its name.  So a fault never repeats the name of a
file, and the name of a variable only if it is in capitals, as such names are.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from tornado_proxy.config.findings import Findings
from tornado_proxy.domain.config.document import Document, list_children
from tornado_proxy.domain.config.document import Path as DocumentPath
from tornado_proxy.domain.identity import Secret

#: Bytes of a secret file; keys have about 200.
_MAX_SECRET_BYTES = 64 * 1024

#: Names of environment variables that a fault can repeat.
_VARIABLE_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")

#: Characters of a secret: printable ASCII without spaces, which both a header and the text form of an API key can hold.
_SECRET = re.compile(r"[!-~]+")

#: Marks around a value in shell syntax, which other readers of such files take for a part of it.
_QUOTES = "\"'`"

#: The start of a line of an environment file, NAME=value.  A name has an underscore and the value is not empty, so that
#: base64 with its padding is no such line.
_ASSIGNMENT = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)+=[^=]")

#: Keys whose values are references, wherever they are.
_SECRET_KEYS = frozenset({"api_key", "client_secret", "secret", "password", "token"})

#: The paths of references whose key has another meaning elsewhere.
_SECRET_PATHS = frozenset({("state", "keys")})

#: Secrets by the path of their reference.
Secrets = Mapping[DocumentPath, Secret]


def read_secrets(document: Document, below: DocumentPath, findings: Findings) -> Secrets:
    """Return the secrets of all valid references inside `below`, and add a fault for each that cannot be resolved.

    Relative paths start at the folder of the document.  White space around a secret is removed: files end with a line
    end, and copied keys often with a space.
    """
    found = {}
    reader = _Reader(document, findings)
    for path, reference in _list_references(document.content, ()):
        if path[: len(below)] == below and not findings.has_fault(document, path):
            secret = reader.read(reference, path)
            if secret is not None:
                found[path] = secret
    return found


def list_variables(document: Document) -> frozenset[str]:
    """Return the names of all environment variables from which `document` reads a secret."""
    references = (reference for _, reference in _list_references(document.content, ()))
    return frozenset(str(reference["env"]) for reference in references if "env" in reference)


def is_in_reference(path: DocumentPath) -> bool:
    """Return True if a value at `path` is a reference to a secret, or inside one."""
    return any(key in _SECRET_KEYS for key in path) or path[:2] in _SECRET_PATHS


def _list_references(value: object, path: DocumentPath) -> Iterator[tuple[DocumentPath, Mapping[str, object]]]:
    for key, member in list_children(value):
        if isinstance(member, dict) and (key in _SECRET_KEYS or (*path, key) in _SECRET_PATHS):
            yield (*path, key), member
        else:
            yield from _list_references(member, (*path, key))


class _Reader:
    """Resolves the references of one document."""

    def __init__(self, document: Document, findings: Findings) -> None:
        self._document = document
        self._folder = Path(document.file).parent
        self._findings = findings

    def read(self, reference: Mapping[str, object], path: DocumentPath) -> Secret | None:
        """Return the secret of the reference at `path`, or add a fault and return None."""
        if "env" in reference:
            text, problem = _read_environment(str(reference["env"]))
        else:
            text, problem = self._read_file(self._folder / str(reference["file"]), (*path, "file"))
        secret = text.strip()
        problem = problem or _find_problem(secret)
        if problem:
            self._findings.add(self._document, path, problem)
            return None
        return Secret(secret)

    def _read_file(self, file: Path, path: DocumentPath) -> tuple[str, str]:
        """Return the text and "", or "" and a problem."""
        try:
            with file.open("rb") as opened:
                # fstat() describes the file that is open; stat() could describe one that replaced it meanwhile.
                mode = os.fstat(opened.fileno()).st_mode
                data = opened.read(_MAX_SECRET_BYTES + 1)
            text = data.decode()
        except OSError as error:
            return "", f"the file cannot be read: {error.strerror} (relative paths start at {self._folder.resolve()})"
        except UnicodeDecodeError:
            return "", "the file must be UTF-8 text"
        # Only regular files: the mode of a pipe such as /dev/fd/3 says nothing about who can write to it.
        if stat.S_ISREG(mode) and mode & stat.S_IWOTH:
            return "", "the file is writable by every user of this machine; run chmod o-w on it"
        # Only a warning: container runtimes often mount secrets as files that every user can read.
        if stat.S_ISREG(mode) and mode & stat.S_IROTH:
            self._findings.warnings.append(
                self._document.fault(path, "the file is readable by every user of this machine; run chmod o-r on it")
            )
        if len(data) > _MAX_SECRET_BYTES:
            return "", f"the file must have at most {_MAX_SECRET_BYTES} bytes"
        return text, "" if text.strip() else "the file is empty"


def _find_problem(secret: str) -> str:
    """Return why `secret` cannot be one, "" if it can.  The sentence does not repeat it."""
    if not _SECRET.fullmatch(secret):
        return "the secret must be printable ASCII without spaces"
    if len(secret) > 1 and secret[0] == secret[-1] and secret[0] in _QUOTES:
        return "the secret is in quotes; remove them (docker --env-file and systemd keep them as part of the value)"
    if _ASSIGNMENT.match(secret):
        return "the secret must be the value alone; remove the name and the = in front of it"
    return ""


def _read_environment(name: str) -> tuple[str, str]:
    shown = name if _VARIABLE_NAME.fullmatch(name) else "(name hidden: it could be a secret)"
    text = os.environ.get(name)
    if text is None:
        return "", f"environment variable {shown} is not set"
    return text, "" if text.strip() else f"environment variable {shown} is empty"
