"""A process that uses a ledger until it is killed, and prints each promise that the ledger made.

    begun ID      begin() returned: the intent is durable
    finished ID   the record is durable

Run as `python -m tests.ledger.child LEDGER JOB NAME`.  LEDGER is a path, or a PostgreSQL URL and the folder of its
journal, separated by a blank.  The jobs:

    load    begins and finishes requests for ever
    hold    begins one request and waits
    ahead   begins one, writes its record ahead of its end, and waits
    finish  begins one, finishes it as a session does, and keeps the loop from committing anything
    end     as ahead, then finishes it as a client that left, and keeps the loop from committing anything
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from tests.harness import TIMEOUT_S
from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.domain.config.ledger_address import LedgerAddress, PostgresAddress
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.domain.record import Outcome
from tornado_proxy.ledger.backends import make_ledger
from tornado_proxy.ledger.protocol import Ledger


def write_line(text: str) -> None:
    """Print a line with one system call: a killed process must not lose a promise in a buffer."""
    os.write(1, f"{text}\n".encode())


async def send_request(ledger: Ledger, request_id: str) -> None:
    """Begin a request and finish it."""
    intent = make_intent(request_id)
    try:
        await ledger.begin(intent)
    except LedgerUnavailable:
        await asyncio.sleep(0.02)
        return
    write_line(f"begun {request_id}")
    await ledger.finish(make_record(intent))
    write_line(f"finished {request_id}")


async def send_requests(ledger: Ledger, name: str) -> None:
    """Send one request after the other, for ever."""
    number = 0
    while True:
        await send_request(ledger, f"{name}-{number}")
        number += 1


def block_loop() -> None:
    """Keep the loop from committing: a record waits for others until a timer of the loop flushes its batch."""
    time.sleep(TIMEOUT_S)


def parse_address(text: str) -> LedgerAddress:
    """Return the address of a LEDGER argument."""
    url, _, journal = text.partition(" ")
    return PostgresAddress(url, None, Path(journal)) if journal else Path(text)


async def main(address: LedgerAddress, job: str, name: str) -> None:
    """Do a job until the process is killed."""
    ledger = make_ledger(address)
    await ledger.open()
    write_line("open")
    if job == "load":
        await asyncio.gather(*(send_requests(ledger, f"{name}-{number}") for number in range(20)))
    intent = make_intent(name)
    await ledger.begin(intent)
    if job in ("ahead", "end"):
        ledger.write_ahead(make_record(intent))
    if job == "finish":
        ledger.finish(make_record(intent))
    if job == "end":
        ledger.finish(make_record(intent, outcome=Outcome.CLIENT_CLOSED))
    write_line(f"begun {name}")
    if job in ("finish", "end"):
        block_loop()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(parse_address(sys.argv[1]), sys.argv[2], sys.argv[3]))
