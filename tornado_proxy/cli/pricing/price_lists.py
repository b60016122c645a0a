"""Reads a public price list and compares it with the price files, for `pricing diff` and `pricing import`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import click

from tornado_proxy.cli.options.config_lookup import find_prices, named_config, read_prices
from tornado_proxy.config.files import read_document
from tornado_proxy.domain.config.document import Document
from tornado_proxy.domain.units import MIB
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.pricing.lists.comparison import ComparedPrice, Finding, compare, select
from tornado_proxy.pricing.lists.import_genai import read_genai
from tornado_proxy.pricing.lists.import_litellm import read_litellm
from tornado_proxy.pricing.lists.price_list import NotAPriceList, PriceList
from tornado_proxy.providers.registry import list_priced_paths

#: Values of the option --only.
FINDINGS = {"differs": Finding.DIFFERS, "missing": Finding.MISSING, "new": Finding.NEW_MODEL}

#: LiteLLM's list, the larger one, has some 2 MB.
_MAX_LIST_BYTES = 64 * MIB

FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
MODELS = click.option(
    "--model", "models", multiple=True, metavar="PATTERN", help="Only these models; * matches any text."
)
ONLY = click.option(
    "--only", type=click.Choice(list(FINDINGS)), multiple=True, help="Only differences of this kind; default: all."
)


@dataclass(frozen=True, slots=True)
class ListComparison:
    """A list, our price documents, and each listed price compared with ours."""

    listed: PriceList
    documents: Sequence[Document]
    book: PriceBook
    compared: Sequence[ComparedPrice]

    def choose(self, models: Sequence[str], only: Sequence[str]) -> list[ComparedPrice]:
        """Return the differences of models that match one of `models`, of the kinds in `only`; empty selects all."""
        findings = {FINDINGS[value] for value in only} or {*FINDINGS.values(), Finding.OTHER_TERMS}
        return select(self.compared, findings, models)


def compare_with(file: Path, config: Path | None, prices: Path | None, since: datetime | None = None) -> ListComparison:
    """Compare the list in `file` with the prices of today, or of the day `since` if it is later.

    Raises:
        ConfigError: the price files have faults.
        click.ClickException: the list cannot be read.
    """
    documents = read_prices(find_prices(named_config(config), prices))
    book, now = PriceBook.from_documents(documents), datetime.now(UTC)
    at = now if since is None else max(now, since)
    listed = _read_list(file, now.date())
    return ListComparison(listed, documents, book, compare(book, listed.models, at))


def _read_list(file: Path, today: date) -> PriceList:
    content, endpoints = _read_content(file), list_priced_paths()
    try:
        return read_litellm(content, endpoints)
    except NotAPriceList as litellm_error:
        try:
            return read_genai(content, endpoints, today)
        except NotAPriceList as genai_error:
            raise click.ClickException(f"{file} {litellm_error}, and {genai_error}") from None


def _read_content(file: Path) -> object:
    """Return the parsed JSON or YAML of a file; numbers with a point are Decimal."""
    try:
        if file.stat().st_size > _MAX_LIST_BYTES:
            raise click.ClickException(f"{file} is larger than {_MAX_LIST_BYTES} bytes; it is no price list")
        # utf-8-sig: a file saved on Windows can begin with a byte order mark, which json.loads() rejects.
        text = file.read_text("utf-8-sig")
    except OSError as error:
        raise click.ClickException(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.ClickException(f"{file} is not UTF-8 text") from None
    try:
        # Decimal: 0.00000025 as a binary float would become a price with dozens of decimals.
        content: object = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError):
        # YAML after JSON: PyYAML needs some five seconds for LiteLLM's 2 MB.
        return read_document(file).content
    return content
