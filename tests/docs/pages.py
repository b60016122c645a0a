"""Reads the Markdown pages of the project: README.md, CHANGELOG.md, SECURITY.md and docs/."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.harness import ROOT

DOCS = ROOT / "docs"
README = ROOT / "README.md"

#: A fenced block: its language and its text.  A fence inside a list is indented and does not count.
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_CODE_SPAN = re.compile(r"`([^`\n]+)`")


def pages() -> list[Path]:
    """Return every page."""
    return [README, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *sorted(DOCS.rglob("*.md"))]


def page_name(page: Path) -> str:
    """Return the path of a page below the project, for test ids."""
    return page.relative_to(ROOT).as_posix()


def text_of(*names: str) -> str:
    """Return the text of pages in docs/."""
    return "\n".join((DOCS / name).read_text("utf-8") for name in names)


def all_text() -> str:
    """Return the text of all pages."""
    return "\n".join(page.read_text("utf-8") for page in pages())


def fences(page: Path, *languages: str) -> Iterator[str]:
    """Yield the fenced blocks of a page in one of `languages`; "" is a fence without a language."""
    for language, block in _FENCE.findall(page.read_text("utf-8")):
        if language in languages:
            yield block


def code_spans(page: Path) -> list[str]:
    """Return the code spans of a page, without its fenced blocks."""
    return _CODE_SPAN.findall(_text_without_fences(page))


def links(page: Path) -> list[str]:
    """Return the targets of the links of a page."""
    return _LINK.findall(_text_without_fences(page))


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes from the headings of a page."""
    # GitHub lowers the text, drops punctuation and writes hyphens for spaces.
    headings = _HEADING.findall(_text_without_fences(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(page: Path) -> list[list[str]]:
    """Return the cells of every table row of a page, separator lines left out."""
    lines = [line for line in page.read_text("utf-8").splitlines() if line.startswith("|")]
    # `\|` is a bar inside a cell (GitHub Flavored Markdown, "Tables").
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in cells if not set("".join(row)) <= {"-", ":"}]


def _text_without_fences(page: Path) -> str:
    return _FENCE.sub("", page.read_text("utf-8"))
