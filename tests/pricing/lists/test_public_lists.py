"""docs/price_lists.md explains every difference from the public list that is installed."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from tests.docs.pages import text_of
from tests.pricing.lists.genai_package import export_providers
from tornado_proxy.config.bundled import conf_path
from tornado_proxy.config.files import read_documents
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.pricing.lists.comparison import Finding, compare
from tornado_proxy.pricing.lists.import_genai import read_genai
from tornado_proxy.providers.registry import list_priced_paths

#: The day on which the page was compared.
CHECKED = datetime(2026, 11, 28, 12, tzinfo=UTC)


def explained_models() -> set[str]:
    """Return the models in the first column of the table on genai-prices."""
    section = text_of("price_lists.md").partition("### genai-prices")[2].partition("\n#")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_difference_from_genai_prices_is_explained() -> None:
    book = PriceBook.from_documents(read_documents(conf_path("prices")))
    listed = read_genai(export_providers("openai", "anthropic"), list_priced_paths(), CHECKED.date())

    compared = compare(book, listed.models, CHECKED)

    assert sum(price.finding is Finding.SAME for price in compared) > 1000
    differing = {price.listed_model.name for price in compared if price.finding is not Finding.SAME}
    assert differing == explained_models()
