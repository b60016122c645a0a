"""Reads and checks price files.  A file whose text has not changed is neither parsed nor checked again.

The bundled files take 0.1 s of CPU time, which a reload would spend again.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tornado_proxy.config.files import parse_document, read_files, read_text
from tornado_proxy.config.validation import check
from tornado_proxy.domain.config.document import Document
from tornado_proxy.domain.config.fault import Fault
from tornado_proxy.domain.errors import ConfigError

#: Files that are kept: those of one configuration, before and after a change.
_MAX_KEPT_FILES = 8


@dataclass(frozen=True, slots=True)
class PriceFile:
    """A parsed price file and its faults against its schema.  It is shared: nothing may change its content."""

    document: Document
    faults: tuple[Fault, ...]


def read_price_files(path: Path) -> list[PriceFile]:
    """Read and check a price file, or all of a folder.

    Raises:
        ConfigError: A file cannot be read or is not valid YAML; the error holds the faults of all files.
    """
    return read_files(path, lambda file: check_price_file(file, read_text(file)))


@functools.lru_cache(_MAX_KEPT_FILES)
def check_price_file(path: Path, text: str) -> PriceFile:
    """Parse and check the text of the file at `path`.

    Raises:
        ConfigError: The text is not valid YAML.
    """
    document = parse_document(path, text)
    return PriceFile(document, tuple(check(document, "prices")))


def list_valid_documents(files: Sequence[PriceFile]) -> list[Document]:
    """Return the documents of price files; raise ConfigError with the faults of all files if there are any."""
    faults = [fault for file in files for fault in file.faults]
    if faults:
        raise ConfigError(faults)
    return [file.document for file in files]
