"""Where reports find the ledger and the prices: in a configuration, of which only the sections they need are looked at.

The configuration's secrets may be out of reach of who reads reports.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path

import click

from tornado_proxy.config.bundled import conf_path
from tornado_proxy.config.files import read_document, read_documents
from tornado_proxy.config.findings import Findings
from tornado_proxy.config.ledger import ledger_address, read_ledger_password
from tornado_proxy.config.validation import check
from tornado_proxy.domain.document import Document
from tornado_proxy.domain.errors import ConfigError, LedgerUnavailable
from tornado_proxy.domain.ledger_address import LedgerAddress
from tornado_proxy.pricing.book.price_book import PriceBook

CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=Path("conf/proxy.yaml"),
    help="Names the ledger and the prices.",
)
PRICES_CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Names the price files; default: conf/proxy.yaml where it is, else the prices that come with the program.",
)
LEDGER = click.option("--ledger", "url", help="The ledger itself: sqlite:///PATH or postgresql://...")
PRICES = click.option("--prices", type=click.Path(path_type=Path), help="The price file or folder itself.")


@contextlib.contextmanager
def reporting() -> Iterator[None]:
    """Turn what keeps a report from being made into words on standard error and exit status 1."""
    try:
        yield
    except (ConfigError, LedgerUnavailable) as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    except BrokenPipeError:
        # The reader has seen enough.  Python flushes once more at exit, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def find_ledger(config: Path, url: str | None) -> LedgerAddress:
    """The ledger, from its URL or the configuration's.  libpq finds the password of a URL itself.

    Raises:
        ConfigError: with every fault of the configuration's section `ledger`.
    """
    if url is None:
        document = read_document(config)
        section = _section(config, "ledger")
    else:
        section = {"url": url}
        document = Document("--ledger", {"ledger": section}, {})
    findings = Findings([fault for fault in check(document, "proxy") if fault.key.startswith("ledger")])
    password = read_ledger_password(document, findings)
    if findings.faults and url is not None:
        raise click.UsageError(findings.faults[0].rule)
    if findings.faults:
        raise ConfigError(findings.faults)
    return ledger_address(section, config.parent if url is None else Path(), password)


def named_config(config: Path | None) -> Path | None:
    """The configuration that names the price files: the one given, else the usual one where it is there."""
    usual = Path("conf/proxy.yaml")
    return usual if config is None and usual.exists() else config


def find_prices(config: Path | None, prices: Path | None) -> Path:
    """The price file or folder: the one given, the configuration's, or the one that comes with the program."""
    if prices is not None:
        return prices
    named = _section(config, "pricing").get("path")
    return conf_path("prices") if named is None or config is None else config.parent / str(named)


def readable(config: Path, url: str | None) -> Path | None:
    """The configuration; None where the ledger is given without one, so that the bundled prices hold."""
    return None if url is not None and not config.exists() else config


def is_bundled(config: Path | None, prices: Path | None) -> bool:
    """Whether the price files are those of an installed program."""
    path = find_prices(config, prices).resolve()
    return path == conf_path("prices").resolve() and "bundled" in path.parts


def read_prices(path: Path) -> list[Document]:
    """The price documents at `path`, valid against their schema.

    Raises:
        ConfigError: with every fault of every file.
    """
    documents = read_documents(path)
    faults = [fault for document in documents for fault in check(document, "prices")]
    if faults:
        raise ConfigError(faults)
    return documents


def load_prices(config: Path | None, prices: Path | None) -> PriceBook:
    """The registry of today.

    Raises:
        ConfigError: with every fault of every file.
    """
    return PriceBook.from_documents(read_prices(find_prices(config, prices)))


def find_surcharge(config: Path | None) -> Decimal:
    """The configuration's surcharge rate, 0 where it has none."""
    text = str(_section(config, "pricing").get("surcharge_rate", "0"))
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal(0)


def _section(config: Path | None, name: str) -> Mapping[str, object]:
    if config is None:
        return {}
    content = read_document(config).content
    section = content.get(name) if isinstance(content, dict) else None
    return section if isinstance(section, dict) else {}
