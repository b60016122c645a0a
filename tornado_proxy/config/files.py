"""Reads YAML files into documents that remember their lines.  One of the two files on this floor that read disk.

Stricter than YAML: a key that stands twice is a fault, numbers with a point are Decimal, dates stay text, and there are
no tags, no anchors and no merge keys, so that what a file says is what stands in it.  No fault repeats a value.
"""

from __future__ import annotations

import os
import re
from decimal import Decimal
from pathlib import Path

import yaml

from tornado_proxy.domain.document import Document
from tornado_proxy.domain.document import Path as DocumentPath
from tornado_proxy.domain.errors import ConfigError, Fault
from tornado_proxy.domain.units import MIB

#: Bytes of one file; the largest price file has some 150 KB.
_MAX_FILE_BYTES = 8 * MIB

#: Levels of lists and mappings; the deepest file has ten.  The YAML composer recurses once a level.
_MAX_DEPTH = 50

#: Digits of a whole number; no setting needs more than 64 bits.
_MAX_DIGITS = 18

#: Text of the file in a message of the parser: it could be a secret.  Single characters ("','", "'\\t'") and names of
#: tokens ("'<block end>'") help and give nothing away.
_QUOTED = re.compile("('(?:..?|<[^']*>)')|'[^']*'")

_TAG = "tag:yaml.org,2002:"


def read_document(path: Path) -> Document:
    """Read one file.

    Raises:
        ConfigError: it is missing, unreadable, empty, or not YAML as we take it; with every fault found.
    """
    text = _read_text(path)
    try:
        node = yaml.compose(text, Loader=_PlainLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        problem = _without_words(str(error.problem or error.context))
        raise _unusable(path, f"is not YAML: {problem}", line) from None
    except yaml.YAMLError as error:
        raise _unusable(path, f"is not YAML: {str(error).splitlines()[0]}") from None
    if node is None:
        raise _unusable(path, "is empty")
    builder = _Builder(path)
    content = builder.build(node, ())
    if builder.faults:
        raise ConfigError(builder.faults)
    return Document(str(path), content, builder.lines)


def read_documents(path: Path) -> list[Document]:
    """Read a file, or each `*.yaml` of a folder, in the order of their names.

    Raises:
        ConfigError: with the faults of all files.
    """
    if not is_folder(path):
        return [read_document(path)]
    files = sorted(path.glob("*.yaml"))
    if not files:
        raise _unusable(path, "holds no *.yaml file")
    documents: list[Document] = []
    faults: list[Fault] = []
    for file in files:
        try:
            documents.append(read_document(file))
        except ConfigError as error:
            faults.extend(error.faults)
    if faults:
        raise ConfigError(faults)
    return documents


def is_folder(path: Path) -> bool:
    """Whether there is a folder at `path`; False too where that cannot be found out, unlike `Path.is_dir`."""
    return os.path.isdir(path)


def why_unreadable(path: Path) -> str | None:
    """What stands in the way of reading the file at `path`, in words that follow its name; None where nothing does."""
    try:
        with path.open("rb"):
            return None
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        raise _unusable(path, "does not exist; name another file or make this one") from None
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _unusable(path, "is not UTF-8 text") from None
    if len(data) > _MAX_FILE_BYTES:
        raise _unusable(path, f"is larger than {_MAX_FILE_BYTES} bytes")
    return text


def _unusable(path: Path, rule: str, line: int = 0) -> ConfigError:
    return ConfigError([Fault(str(path), line, "", rule)])


def _without_words(problem: str) -> str:
    return _QUOTED.sub(lambda quoted: quoted[1] or "a word", problem)


class _PlainLoader(yaml.SafeLoader):
    """Composes nodes, without what makes a file say more than stands in it: aliases could grow without bounds."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: object = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it out
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise self._refusal("anchors (&) and aliases (*) are not taken here; quote the text or write it out")
        if getattr(event, "tag", None) is not None:
            raise self._refusal("tags (!) are not taken here; quote the text if it is one")
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._refusal(f"is nested deeper than {_MAX_DEPTH} levels")
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _refusal(self, rule: str) -> yaml.MarkedYAMLError:
        return yaml.MarkedYAMLError(problem=rule, problem_mark=self.peek_event().start_mark)  # type: ignore[no-untyped-call]  # the stubs leave it out


class _Builder:
    """Turns YAML nodes into values, noting lines and faults on the way."""

    def __init__(self, path: Path) -> None:
        self._file = str(path)
        self.lines: dict[DocumentPath, int] = {}
        self.faults: list[Fault] = []

    def build(self, node: yaml.Node, path: DocumentPath) -> object:
        """The value of `node`, which stands at `path`."""
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        if not _is_text(node.value):
            return self._fault(node, "holds a character that no setting can hold")
        return _scalar(node.tag.removeprefix(_TAG), node.value)

    def _mapping(self, node: yaml.MappingNode, path: DocumentPath) -> dict[str, object]:
        content: dict[str, object] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or not key_node.value.isprintable():
                self._fault(key_node, "a key must be plain text")
                continue
            if key_node.tag == _TAG + "merge":
                self._fault(key_node, "merge keys (<<) are not taken here; write the members out")
                continue
            key = key_node.value
            if key in content:
                first = self.lines[(*path, key)]
                self._fault(key_node, f"this key stands twice in one mapping, first on line {first}")
                continue
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            content[key] = self.build(value_node, (*path, key))
        return content

    def _fault(self, node: yaml.Node, rule: str) -> object:
        self.faults.append(Fault(self._file, node.start_mark.line + 1, "", rule))
        return None


def _is_text(text: str) -> bool:
    """Whether `text` can be a path, a name or a word: no NUL, no half of a surrogate pair.  YAML escapes make both."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _scalar(kind: str, text: str) -> object:
    """The value of plain or quoted `text` that YAML 1.1 takes for a `kind`; numbers that are not decimal stay text."""
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
