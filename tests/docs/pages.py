"""The pages that people read, and what stands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.harness import ROOT

DOCS = ROOT / "docs"
README = ROOT / "README.md"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def pages() -> list[Path]:
    """Every page of Markdown that a reader is sent to."""
    return [README, ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]


def text_of(*names: str) -> str:
    """The text of pages in docs/."""
    return "\n".join((DOCS / name).read_text("utf-8") for name in names)


def all_text() -> str:
    """README and docs/ in one."""
    return "\n".join(page.read_text("utf-8") for page in pages())


def fences(page: Path, *languages: str) -> Iterator[str]:
    """The fenced blocks of a page in one of `languages`; "" is a fence without one."""
    for language, block in _FENCE.findall(page.read_text("utf-8")):
        if language in languages:
            yield block


def links(page: Path) -> list[str]:
    """Where the links of a page lead."""
    return _LINK.findall(_FENCE.sub("", page.read_text("utf-8")))


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings make."""
    headings = _HEADING.findall(_FENCE.sub("", page.read_text("utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(page: Path) -> list[list[str]]:
    """The cells of every table row of a page, headings left out."""
    lines = [line for line in page.read_text("utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in cells if not set("".join(row)) <= {"-", ":"}]
