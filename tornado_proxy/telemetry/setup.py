"""The setup of a telemetry process: the receiver, and the ledger that it follows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tornado_proxy.domain.config.ledger_address import LedgerAddress, PostgresAddress
from tornado_proxy.domain.identity import Secret


def make_setup(address: LedgerAddress, endpoint: str) -> dict[str, Any]:
    """Return the setup of a process, which main() reads as a line of JSON."""
    if isinstance(address, Path):
        return {"endpoint": endpoint, "path": str(address)}
    password = None if address.password is None else address.password.reveal()
    return {"endpoint": endpoint, "url": address.url, "password": password, "journal": str(address.journal)}


def read_address(setup: Mapping[str, Any]) -> LedgerAddress:
    """Return the address of the ledger in a setup."""
    if "path" in setup:
        return Path(setup["path"])
    password = setup["password"]
    return PostgresAddress(setup["url"], None if password is None else Secret(password), Path(setup["journal"]))
