"""A process that uses a ledger file until it is killed, and says on standard output what it was promised.

    begun ID      begin() returned: the intent is durable
    finished ID   the record is durable

Run as `python -m tests.ledger.child LEDGER load NAME` or `... hold NAME`; `hold` begins one call and waits.  LEDGER is
a path, or a PostgreSQL URL and the folder of its journal with a blank between them.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.ledger.calls import intent, record
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.domain.ledger_address import LedgerAddress, PostgresAddress
from tornado_proxy.ledger.backends import make_ledger
from tornado_proxy.ledger.protocol import Ledger


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


async def call(ledger: Ledger, request_id: str) -> None:
    one = intent(request_id)
    try:
        await ledger.begin(one)
    except LedgerUnavailable:
        await asyncio.sleep(0.02)
        return
    say(f"begun {request_id}")
    await ledger.finish(record(one))
    say(f"finished {request_id}")


async def caller(ledger: Ledger, name: str) -> None:
    number = 0
    while True:
        await call(ledger, f"{name}-{number}")
        number += 1


def address(text: str) -> LedgerAddress:
    url, _, journal = text.partition(" ")
    return PostgresAddress(url, None, Path(journal)) if journal else Path(text)


async def main(where: LedgerAddress, job: str, name: str) -> None:
    ledger = make_ledger(where, fsync=False)
    await ledger.open()
    say("open")
    if job == "load":
        await asyncio.gather(*(caller(ledger, f"{name}-{number}") for number in range(20)))
    await ledger.begin(intent(name))
    say(f"begun {name}")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(address(sys.argv[1]), sys.argv[2], sys.argv[3]))
