"""Links lead somewhere, and every page can be found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import README, anchors, links, pages
from tests.harness import ROOT


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", pages(), ids=named)
def test_every_link_inside_the_project_leads_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


def test_every_page_is_reached_from_the_readme() -> None:
    reached = {README}
    todo = [README]
    while todo:
        new = set(_linked(todo.pop())) - reached
        reached |= new
        todo.extend(new)

    assert {named(page) for page in pages()} - {named(page) for page in reached} <= {"CHANGELOG.md"}


def _linked(page: Path) -> Iterator[Path]:
    for link in links(page):
        target = (page.parent / link.partition("#")[0]).resolve()
        if target.is_dir():
            yield from target.glob("*.md")
        elif target.suffix == ".md" and target.exists():
            yield target


def test_every_page_that_the_code_speaks_of_exists() -> None:
    places = [ROOT / "setup.cfg"]
    for folder in ("tornado_proxy", "conf", "schemas", "bench", "tests", ".ci"):
        places += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml", ".json", ".conf")]
    named = {page for path in places for page in re.findall(r"\bdocs/[\w/-]+\.md", path.read_text("utf-8"))}

    assert len(named) > 10
    assert [page for page in sorted(named) if not (ROOT / page).exists()] == []
