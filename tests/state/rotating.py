"""A process that rotates an access key again and again, and prints each secret when its change has ended."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

from tornado_proxy.domain.config.ledger_address import LedgerAddress, PostgresAddress
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.state import access_keys
from tornado_proxy.state.store import StateStore


def main(url: str, key_id: str) -> None:
    address: LedgerAddress = Path(url)
    if url.startswith("postgresql:"):
        address = PostgresAddress(url, None, Path("unused"))
    store = StateStore(make_backend(address, fsync=True))
    while True:
        _, secret = access_keys.rotate(store, "cli:ada", key_id, timedelta())
        sys.stdout.write(f"{secret.reveal()}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
