"""Public price lists, read from a file and compared with the price files: what `pricing diff` and `import` share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path

import click

from tornado_proxy.cli.config_lookup import find_prices, named_config, read_prices
from tornado_proxy.config.bundled import schema
from tornado_proxy.config.files import read_document
from tornado_proxy.domain.document import Document
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.pricing.lists.comparison import ComparedPrice, Finding, compare
from tornado_proxy.pricing.lists.import_genai import read_genai
from tornado_proxy.pricing.lists.import_litellm import read_litellm
from tornado_proxy.pricing.lists.price_list import NotAPriceList, PriceList

#: Words of the option --only.
FINDINGS = {"differs": Finding.DIFFERS, "missing": Finding.MISSING, "new": Finding.NEW_MODEL}

#: Bytes of a list; LiteLLM's has some 2 MB.
_MAX_BYTES = 64 * 1024 * 1024

FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
MODELS = click.option("--model", "models", multiple=True, metavar="PATTERN", help="Only these models; * is any text.")
ONLY = click.option(
    "--only", type=click.Choice(list(FINDINGS)), multiple=True, help="Only these kinds of differences; default: all."
)


@dataclass(frozen=True, slots=True)
class ListComparison:
    """A list, our price documents, and each price of the one beside ours."""

    listed: PriceList
    documents: Sequence[Document]
    book: PriceBook
    compared: Sequence[ComparedPrice]

    def choose(self, models: Sequence[str], only: Sequence[str]) -> list[ComparedPrice]:
        """What differs, of models whose names match and of the kinds named; none named are all."""
        findings = {FINDINGS[word] for word in only} or {*FINDINGS.values(), Finding.OTHER_TERMS}
        return [
            one
            for one in self.compared
            if one.finding in findings
            and (not models or any(fnmatchcase(one.listed_model.name, name) for name in models))
        ]


def compare_with(file: Path, config: Path | None, prices: Path | None, since: datetime | None = None) -> ListComparison:
    """Compare the list in `file` with the price files of today, or of the day `since` where that is later.

    Raises:
        ConfigError: the price files are faulty.
        click.ClickException: the list cannot be read.
    """
    documents = read_prices(find_prices(named_config(config), prices))
    book, now = PriceBook.from_documents(documents), datetime.now(UTC)
    at = now if since is None else max(now, since)
    listed = _read_list(file, now.date())
    return ListComparison(listed, documents, book, compare(book, listed.models, at))


def known_endpoints() -> frozenset[str]:
    """The endpoints that price files may name."""
    return frozenset(schema("prices")["$defs"]["model"]["properties"]["endpoints"]["items"]["enum"])


def _read_list(file: Path, today: date) -> PriceList:
    content, endpoints = _content(file), known_endpoints()
    try:
        return read_litellm(content, endpoints)
    except NotAPriceList as one:
        try:
            return read_genai(content, endpoints, today)
        except NotAPriceList as other:
            raise click.ClickException(f"{file} {one}, and {other}") from None


def _content(file: Path) -> object:
    """What the file holds, JSON or YAML; numbers with a point are Decimal."""
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise click.ClickException(f"{file} is larger than {_MAX_BYTES} bytes")
        text = file.read_text("utf-8-sig")
    except OSError as error:
        raise click.ClickException(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.ClickException(f"{file} is not UTF-8 text") from None
    try:
        content: object = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError):
        return read_document(file).content
    return content
