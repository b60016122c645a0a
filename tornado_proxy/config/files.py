"""Reads YAML files into documents that remember line numbers.

A strict subset of YAML 1.1: duplicate keys are faults, numbers with a decimal point are Decimal, dates stay text, and
tags, anchors and merge keys are not supported.  A fault never repeats a value of the file, because it can be a secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TypeAlias, TypeVar

import yaml

from tornado_proxy.domain.config.document import Document
from tornado_proxy.domain.config.document import Path as DocumentPath
from tornado_proxy.domain.config.fault import Fault
from tornado_proxy.domain.errors import ConfigError
from tornado_proxy.domain.units import MIB

#: Bytes of one file; the largest price file has about 150 KB.
_MAX_FILE_BYTES = 8 * MIB

#: Levels of nested lists and mappings; the deepest file has ten.  The YAML composer recurses once per level.
_MAX_DEPTH = 50

#: Digits of an integer; no setting needs more than 64 bits.  int() on more digits takes quadratic time.
_MAX_DIGITS = 18

_Read = TypeVar("_Read")

_Loader: TypeAlias = type[yaml.SafeLoader] | type[yaml.CSafeLoader]

#: libyaml is six times as fast as Python, but PyYAML built from source can be without it.
_FAST_LOADER: _Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: Quoted text in a message of the YAML parser.  Group 1 is harmless: single characters ("','", "'\\t'") and names of
#: tokens ("'<block end>'").  Other text comes from the file, so it can be a secret.
_QUOTED = re.compile("('(?:..?|<[^']*>)')|'[^']*'")

_TAG_PREFIX = "tag:yaml.org,2002:"


def read_document(path: Path) -> Document:
    """Read one file.

    Raises:
        ConfigError: The file is missing, unreadable, empty or not valid YAML; the error holds every fault.
    """
    return parse_document(path, read_text(path))


def parse_document(path: Path, text: str) -> Document:
    """Parse the text of the file at `path`; raise ConfigError as read_document() does."""
    try:
        node = _compose(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        problem = _hide_quoted_text(str(error.problem or error.context))
        raise _file_error(path, f"invalid YAML: {problem}", line) from None
    except yaml.YAMLError as error:
        raise _file_error(path, f"invalid YAML: {str(error).splitlines()[0]}") from None
    if node is None:  # comments only
        raise _file_error(path, "is empty")
    builder = _Builder(path)
    content = builder.build(node, ())
    if builder.faults:
        raise ConfigError(builder.faults)
    return Document(str(path), content, builder.lines)


def read_documents(path: Path) -> list[Document]:
    """Read a file, or all `*.yaml` files of a folder in the order of their names.

    Raises:
        ConfigError: A file has faults; the error holds those of all files.
    """
    return read_files(path, read_document)


def read_files(path: Path, read: Callable[[Path], _Read]) -> list[_Read]:
    """Return what `read` returns for a file, or for each file of a folder; raise ConfigError as read_documents()."""
    if not is_folder(path):
        return [read(path)]
    files = sorted(path.glob("*.yaml"))
    if not files:
        raise _file_error(path, "contains no *.yaml file")
    results: list[_Read] = []
    faults: list[Fault] = []
    for file in files:
        try:
            results.append(read(file))
        except ConfigError as error:
            faults.extend(error.faults)
    if faults:
        raise ConfigError(faults)
    return results


def resolve_folder(path: Path) -> Path:
    """Return `path` with its folder absolute and without `..`, as people write paths: conf/../var is hard to find.

    A last component that is a symbolic link stays: files beside a ledger belong to the link's folder.
    """
    return path.parent.resolve() / path.name


def is_folder(path: Path) -> bool:
    """Return True if `path` is a folder; False also on errors, such as a name too long, on which Path.is_dir raises."""
    return os.path.isdir(path)


def find_read_error(path: Path) -> str | None:
    """Return the reason why the file at `path` cannot be read, as a phrase after its name; None if it can be read."""
    try:
        with path.open("rb"):
            return None
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def read_text(path: Path) -> str:
    """Return the text of the file at `path`; raise ConfigError if it is missing, unreadable or not UTF-8."""
    try:
        with path.open("rb") as file:
            # A limit, because a path such as /dev/zero has no end.
            data = file.read(_MAX_FILE_BYTES + 1)
        text = data.decode("utf-8-sig")  # some editors on Windows write a byte order mark
    except FileNotFoundError:
        raise _file_error(path, "does not exist; create it or name another file") from None
    except OSError as error:
        raise _file_error(path, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _file_error(path, "must be UTF-8 text") from None
    if len(data) > _MAX_FILE_BYTES:
        raise _file_error(path, f"must have at most {_MAX_FILE_BYTES} bytes")
    return text


def _file_error(path: Path, rule: str, line: int = 0) -> ConfigError:
    return ConfigError([Fault(str(path), line, "", rule)])


def _hide_quoted_text(problem: str) -> str:
    return _QUOTED.sub(lambda quoted: quoted[1] or "some text", problem)


def _compose(text: str) -> yaml.Node | None:
    """Return the root node of `text`, None if it is empty.

    Raises:
        yaml.YAMLError: The text is not valid, or has tags, anchors, aliases or too many levels.
    """
    try:
        return _compose_with(_FAST_LOADER, text)
    except yaml.YAMLError:
        # The parser in Python says more about what it found, and where.
        return _compose_with(yaml.SafeLoader, text)


def _compose_with(loader: _Loader, text: str) -> yaml.Node | None:
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        # A few aliases of aliases can expand to gigabytes.
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _event_error(event, "anchors (&) and aliases (*) are not supported; quote the text or write it out")
        if getattr(event, "tag", None) is not None:
            raise _event_error(event, "tags (!) are not supported; quote the text if it starts with !")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise _event_error(event, f"lists and mappings must be nested at most {_MAX_DEPTH} levels deep")
    node: yaml.Node | None = yaml.compose(text, Loader=loader)
    return node


def _event_error(event: yaml.Event, rule: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=rule, problem_mark=event.start_mark)  # type: ignore[arg-type]  # libyaml's marks


class _Builder:
    """Turns YAML nodes into values, and collects the lines and faults."""

    def __init__(self, path: Path) -> None:
        self._file = str(path)
        self.lines: dict[DocumentPath, int] = {}
        self.faults: list[Fault] = []

    def build(self, node: yaml.Node, path: DocumentPath) -> object:
        """Return the value of `node`, whose path in the document is `path`."""
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        if not _is_text(node.value):
            return self._fault(node, "must not contain NUL or a lone surrogate")
        return _parse_scalar(node.tag.removeprefix(_TAG_PREFIX), node.value)

    def _mapping(self, node: yaml.MappingNode, path: DocumentPath) -> dict[str, object]:
        content: dict[str, object] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or not key_node.value.isprintable():
                self._fault(key_node, "a key must be printable text")
                continue
            if key_node.tag == _TAG_PREFIX + "merge":
                self._fault(key_node, "merge keys (<<) are not supported; write the members out")
                continue
            key = key_node.value
            # PyYAML keeps the last of two equal keys, so an edit of the first one would have no effect.
            if key in content:
                first = self.lines[(*path, key)]
                self._fault(key_node, f'duplicate key "{key}", first on line {first}; remove one')
                continue
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            content[key] = self.build(value_node, (*path, key))
        return content

    def _fault(self, node: yaml.Node, rule: str) -> object:
        self.faults.append(Fault(self._file, node.start_mark.line + 1, "", rule))
        return None


def _is_text(text: str) -> bool:
    """Return True if `text` has no NUL and no lone surrogate, which YAML escapes can produce and no path can hold."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _parse_scalar(kind: str, text: str) -> object:
    """Return the value of `text`, which YAML 1.1 resolves to `kind`.

    Only decimal notation is a number: YAML 1.1 also reads 12:30:45 as a number to the base of 60, and 1_000 as 1000.
    """
    match kind:
        case "null":
            return None
        case "bool":
            return text.lower() in ("true", "yes", "on")
        case "int" if len(digits := text.lstrip("+-")) <= _MAX_DIGITS and digits.isdecimal():
            return int(text)
        case "float" if text.lstrip("+-").replace(".", "", 1).isdecimal():
            return Decimal(text)
        case _:
            return text
