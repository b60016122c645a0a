"""A process that sets a provider key again and again, and prints each key when its change has ended."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

from tornado_proxy.domain.config.ledger_address import LedgerAddress, PostgresAddress
from tornado_proxy.domain.identity import Secret
from tornado_proxy.domain.key_ring import parse_key_ring
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.state.provider_settings import NewSettings, SettingsEditor
from tornado_proxy.state.store import StateStore


def main(url: str, project_id: str, ring: str, start: str) -> None:
    address: LedgerAddress = Path(url)
    if url.startswith("postgresql:"):
        address = PostgresAddress(url, None, Path("unused"))
    store = StateStore(make_backend(address, fsync=True))
    editor = SettingsEditor((project_id, "openai"), "admin", lambda stored: None)
    for number in count(int(start)):
        # The URL changes with the key: a reader must never see the one of another change.
        new = NewSettings(Secret(f"sk-{number}"), f"https://{number}.example")
        editor.put(store, new, parse_key_ring(ring))
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
