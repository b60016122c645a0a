"""The result of a run: figures for a reader, and the promises that were broken."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Report:
    """Rows of a table, and faults; a run has passed if it has no faults."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add_row(self, name: str, figure: str) -> None:
        self.rows.append((name, figure))

    def require(self, holds: bool, fault: str) -> None:
        """Add `fault` unless `holds`."""
        if not holds:
            self.faults.append(fault)

    def format(self) -> str:
        """Return the table and the verdict as text."""
        width = max((len(name) for name, _ in self.rows), default=0)
        lines = [f"{name:<{width}}  {figure}" for name, figure in self.rows]
        lines += [f"BROKEN: {fault}" for fault in self.faults] or ["all promises kept"]
        return "\n".join(lines)
