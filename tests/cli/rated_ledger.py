"""Ledgers whose records were rated with a small price file, for commands that read both."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from tests.reports.rated_records import PRICES, rated_record
from tornado_proxy.cli import main
from tornado_proxy.cli.options.config_lookup import load_prices
from tornado_proxy.domain.record import RequestRecord
from tornado_proxy.ledger.backends import make_ledger


def write_prices(folder: Path, text: str = PRICES) -> Path:
    path = folder / "prices.yaml"
    path.write_text(text)
    return path


def rated(request_id: str, prices: Path, *, tier: str | None = None, region: str | None = None) -> RequestRecord:
    """Return a record of 1000 input and 100 output tokens, with a surcharge of 5 %."""
    return rated_record(request_id, load_prices(None, prices), tier=tier, region=region)


def write_ledger(folder: Path, records: Sequence[RequestRecord]) -> str:
    """Store the records and return the ledger's URL."""

    async def run() -> None:
        ledger = make_ledger(folder / "ledger.db")
        await ledger.open()
        for record in records:
            await ledger.begin(record.intent)
            await ledger.finish(record)
        await ledger.close()

    asyncio.run(run())
    return f"sqlite:///{folder}/ledger.db"


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])
