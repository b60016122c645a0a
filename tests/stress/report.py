"""What a run comes to: figures for a person to read, and promises that were broken."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Report:
    """A run has passed when `faults` is empty."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def row(self, name: str, figure: str) -> None:
        self.rows.append((name, figure))

    def require(self, holds: bool, fault: str) -> None:
        """Note `fault` where a promise does not hold."""
        if not holds:
            self.faults.append(fault)

    def text(self) -> str:
        """A table, and the verdict."""
        width = max((len(name) for name, _ in self.rows), default=0)
        lines = [f"{name:<{width}}  {figure}" for name, figure in self.rows]
        lines += [f"BROKEN: {fault}" for fault in self.faults] or ["all promises kept"]
        return "\n".join(lines)
