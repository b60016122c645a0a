"""Reads YAML files into documents that remember their lines.  One of the two files on this floor that read disk.

Stricter than YAML: a key that stands twice is a fault, numbers with a point are Decimal, dates stay text, and there are
no tags, no anchors and no merge keys, so that what a file says is what stands in it.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import yaml

from tornado_proxy.domain.document import Document
from tornado_proxy.domain.document import Path as DocumentPath
from tornado_proxy.domain.errors import ConfigError, Fault

#: Bytes of one file; the largest price file has some 150 KB.
_MAX_FILE_BYTES = 8 * 1024 * 1024

_TAG = "tag:yaml.org,2002:"


def read_document(path: Path) -> Document:
    """Read one file.

    Raises:
        ConfigError: it is missing, unreadable, empty, or not YAML as we take it; with every fault found.
    """
    text = _read_text(path)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ConfigError([Fault(str(path), line, "", f"is not YAML: {error.problem or error.context}")]) from None
    except yaml.YAMLError as error:
        raise ConfigError([Fault(str(path), 0, "", f"is not YAML: {str(error).splitlines()[0]}")]) from None
    if node is None:
        raise ConfigError([Fault(str(path), 0, "", "is empty")])
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
    if not path.is_dir():
        return [read_document(path)]
    files = sorted(path.glob("*.yaml"))
    if not files:
        raise ConfigError([Fault(str(path), 0, "", "holds no *.yaml file")])
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


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError([Fault(str(path), 0, "", "does not exist")]) from None
    except UnicodeDecodeError:
        raise ConfigError([Fault(str(path), 0, "", "is not UTF-8 text")]) from None
    except OSError as error:
        raise ConfigError([Fault(str(path), 0, "", f"cannot be read: {error.strerror}")]) from None
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError([Fault(str(path), 0, "", f"is larger than {_MAX_FILE_BYTES} bytes")])
    return text


class _Builder:
    """Turns YAML nodes into values, noting lines and faults on the way."""

    def __init__(self, path: Path) -> None:
        self._file = str(path)
        self.lines: dict[DocumentPath, int] = {}
        self.faults: list[Fault] = []
        self._open: set[int] = set()

    def build(self, node: yaml.Node, path: DocumentPath) -> object:
        """The value of `node`, which stands at `path`."""
        self.lines.setdefault(path, node.start_mark.line + 1)
        if id(node) in self._open:
            return self._fault(node, "refers to itself")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
            return self._scalar(node)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: DocumentPath) -> dict[str, object]:
        content: dict[str, object] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == _TAG + "merge":
                self._fault(key_node, "a key must be plain text")
                continue
            key = key_node.value
            if key in content:
                self._fault(key_node, f"key {key!r} stands twice in one mapping")
                continue
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            content[key] = self.build(value_node, (*path, key))
        return content

    def _scalar(self, node: yaml.Node) -> object:
        text: str = node.value
        match node.tag.removeprefix(_TAG):
            case "null":
                return None
            case "bool":
                return text.lower() in ("true", "yes", "on")
            case "int" if text.lstrip("+-").isdecimal():
                return int(text)
            case "float" if text.lstrip("+-").replace(".", "", 1).isdecimal():
                return Decimal(text)
            case "int" | "float" | "str" | "timestamp":
                return text
            case tag:
                return self._fault(node, f"tag {tag!r} is not taken here")

    def _fault(self, node: yaml.Node, rule: str) -> object:
        self.faults.append(Fault(self._file, node.start_mark.line + 1, "", rule))
        return None
