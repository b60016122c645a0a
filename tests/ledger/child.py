"""A process that uses a ledger file until it is killed, and says on standard output what it was promised.

    begun ID      begin() returned: the intent is durable
    finished ID   the record is durable

Run as `python -m tests.ledger.child PATH load NAME` or `... hold NAME`; `hold` begins one call and waits.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.ledger.calls import intent, record
from tornado_proxy.ledger.sqlite import SqliteLedger


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


async def call(ledger: SqliteLedger, request_id: str) -> None:
    one = intent(request_id)
    await ledger.begin(one)
    say(f"begun {request_id}")
    await ledger.finish(record(one))
    say(f"finished {request_id}")


async def caller(ledger: SqliteLedger, name: str) -> None:
    number = 0
    while True:
        await call(ledger, f"{name}-{number}")
        number += 1


async def main(path: Path, job: str, name: str) -> None:
    ledger = SqliteLedger(path)
    await ledger.open()
    say("open")
    if job == "load":
        await asyncio.gather(*(caller(ledger, f"{name}-{number}") for number in range(20)))
    await ledger.begin(intent(name))
    say(f"begun {name}")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
