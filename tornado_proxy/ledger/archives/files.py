"""Reads, writes and verifies the files of archives.

    DIR/2026-10-01.jsonl.gz       the records of a day, one JSON object per line, gzip
    DIR/2026-10-01.2.jsonl.gz     records of the same day that were final later
    DIR/chain.jsonl               one line per file, in the order of writing

A line of the chain has the SHA-256 of its file and that of the line before it, so that no file can be changed, removed
or put in between without a fault; the ledger keeps the hash of the last line.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path

CHAIN_NAME = "chain.jsonl"

_FILE_NAME = re.compile(r"(\d{4}-\d{2}-\d{2})(\.\d+)?\.jsonl\.gz")

#: Bytes of a file that are hashed at once.
_BLOCK_BYTES = 1 << 20


class ArchiveError(Exception):
    """An archive cannot be written, or has changed since.  The message names the file and the fault."""


@dataclass(frozen=True, slots=True)
class ChainLink:
    """A line of the chain.

    Attributes:
        file: The name of the file.
        sha256: The hash of its bytes.
        previous: The hash of the line before, "" for the first one.
        records: The number of its records.
        total: The sum of their totals, USD, decimal text.
    """

    file: str
    sha256: str
    previous: str
    records: int
    total: str

    @property
    def day(self) -> str:
        """The day of the records."""
        return self.file[:10]

    @property
    def text(self) -> str:
        """The line, without its end."""
        return json.dumps(asdict(self))

    @property
    def hash(self) -> str:
        """The hash of the line, which the next one names."""
        return hashlib.sha256(self.text.encode()).hexdigest()


#: A record of an archive: `record`, `settlement` and `given_up` with their columns; null without a row.
ArchivedRecord = Mapping[str, dict[str, object] | None]


def read_chain(folder: Path) -> list[ChainLink]:
    """Return the lines of a folder's chain; none if the folder has no archive.

    Raises:
        ArchiveError: the chain cannot be read, or a line does not follow the one before it.
    """
    path = folder / CHAIN_NAME
    try:
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        links = [ChainLink(**json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError) as error:
        raise ArchiveError(f"{path}: cannot be read: {error}") from error
    previous = ""
    for number, (line, link) in enumerate(zip(lines, links, strict=True), start=1):
        if link.previous != previous or link.text != line or not _FILE_NAME.fullmatch(link.file):
            raise ArchiveError(f"{path}: line {number} does not follow line {number - 1}; restore the file")
        previous = link.hash
    return links


def verify_file(folder: Path, link: ChainLink) -> None:
    """Raise ArchiveError if a file is not the one that was written."""
    path = folder / link.file
    try:
        found = _hash_file(path)
    except OSError as error:
        raise ArchiveError(f"{path}: cannot be read: {error.strerror}; restore the file") from error
    if found != link.sha256:
        raise ArchiveError(f"{path}: has SHA-256 {found}, not {link.sha256} of {CHAIN_NAME}; restore the file")
    records, total = 0, Decimal(0)
    for archived in read_file(folder, link):
        records, total = records + 1, total + Decimal(find_total(archived))
    if (records, f"{total:f}") != (link.records, link.total):
        raise ArchiveError(f"{path}: has {records} records of {total:f} USD, not {link.records} of {link.total}")


def read_file(folder: Path, link: ChainLink) -> Iterator[ArchivedRecord]:
    """Yield the records of a file."""
    with gzip.open(folder / link.file, "rt", encoding="utf-8") as lines:
        for line in lines:
            archived: ArchivedRecord = json.loads(line)
            yield archived


def find_total(archived: ArchivedRecord) -> str:
    """Return the total of an archived record, that of its settlement if it has one."""
    row = archived["settlement"] or archived["record"]
    assert row is not None
    return str(row["total"])


def append_file(folder: Path, day: str, records: Iterable[ArchivedRecord], chain: Sequence[ChainLink]) -> ChainLink:
    """Write the records of a day to a new file, and add it to the chain; both are on the disk when this returns.

    Raises:
        ArchiveError: the folder cannot be written.
    """
    number = sum(link.day == day for link in chain) + 1
    name = f"{day}.jsonl.gz" if number == 1 else f"{day}.{number}.jsonl.gz"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        count, total = _write_file(folder / name, records)
        link = ChainLink(name, _hash_file(folder / name), chain[-1].hash if chain else "", count, f"{total:f}")
        _append_line(folder / CHAIN_NAME, link.text)
    except OSError as error:
        raise ArchiveError(f"{folder}: cannot be written: {error.strerror}") from error
    return link


def _write_file(path: Path, records: Iterable[ArchivedRecord]) -> tuple[int, Decimal]:
    """Write a file under another name first, so that it is whole; return the number and the total of its records."""
    count, total = 0, Decimal(0)
    unfinished = path.with_name(path.name + ".new")
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as raw:
        with gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as out:
            for archived in records:
                out.write(json.dumps(archived).encode() + b"\n")
                count, total = count + 1, total + Decimal(find_total(archived))
        raw.flush()
        os.fsync(raw.fileno())
    unfinished.rename(path)
    return count, total


def _append_line(path: Path, line: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(fd, "wb") as out:
        out.write(line.encode() + b"\n")
        out.flush()
        os.fsync(out.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the names of both files
    finally:
        os.close(folder)


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while block := content.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
