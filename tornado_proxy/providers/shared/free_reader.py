"""The usage reader of responses that cost nothing: those of free endpoints, and those with an error status."""

from __future__ import annotations

from tornado_proxy.domain.usage import Basis, UsageReport


class FreeReader:
    """Reads a response that costs nothing, such as one with an error status."""

    object_id: str | None = None

    def feed(self, data: bytes) -> None:
        """Ignore the bytes."""

    def close(self, *, complete: bool) -> None:
        """End the body."""

    def result(self) -> UsageReport:
        """Return a free report."""
        return UsageReport(basis=Basis.FREE)
