"""docs/glossary.md lists each term once, in alphabetical order, with its meaning."""

from __future__ import annotations

from tests.docs.pages import DOCS, rows

#: The rows of the glossary, without the titles of the columns.
ENTRIES = rows(DOCS / "glossary.md")[1:]


def test_terms_are_unique_and_sorted() -> None:
    terms = [row[0].strip("*").casefold() for row in ENTRIES]

    # An empty list is sorted too.
    assert len(terms) > 50
    assert terms == sorted(set(terms))


def test_every_term_has_a_meaning() -> None:
    assert [row for row in ENTRIES if len(row) != 2 or not row[0].startswith("**") or not row[1]] == []
