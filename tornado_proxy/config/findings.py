"""What is wrong, or doubtful, in the files of one configuration; collected, so that all of it is told at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from tornado_proxy.domain.document import Document, Path, format_path
from tornado_proxy.domain.errors import Fault


@dataclass(slots=True)
class Findings:
    """`faults` keep a configuration from being used, `warnings` do not."""

    faults: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)

    def add(self, document: Document, path: Path, rule: str) -> None:
        """A fault at `path` of `document`."""
        self.faults.append(document.fault(path, rule))

    def has_fault(self, document: Document, path: Path) -> bool:
        """Whether the value at `path` of `document`, or what stands below it, has a fault."""
        key = format_path(path)
        return any(
            fault.file == document.file and (fault.key == key or fault.key.startswith((f"{key}.", f"{key}[")))
            for fault in self.faults
        )
