"""Collects the faults and warnings of one configuration, so that all of them are reported at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from tornado_proxy.domain.config.document import Document, Path, format_path
from tornado_proxy.domain.config.fault import Fault


@dataclass(slots=True)
class Findings:
    """The findings of one configuration: `faults` make it unusable, `warnings` do not."""

    faults: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)

    def add(self, document: Document, path: Path, rule: str) -> None:
        """Add a fault at `path` of `document`."""
        self.faults.append(document.fault(path, rule))

    def has_fault(self, document: Document, path: Path) -> bool:
        """Return True if the value at `path` of `document`, or a value inside it, has a fault."""
        key = format_path(path)
        return any(
            fault.file == document.file and (fault.key == key or fault.key.startswith((f"{key}.", f"{key}[")))
            for fault in self.faults
        )
