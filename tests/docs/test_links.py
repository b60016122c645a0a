"""Links and code paths of the pages exist, and the README leads to every page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, README, anchors, code_spans, links, page_name, pages
from tests.harness import ROOT

#: A path of a folder, which ends in a slash, or of a file; `*` matches anything.  Paths of the server, media types and
#: placeholders in angle brackets do not match, nor does `var/`, a folder for output.
_CODE_PATH = re.compile(
    r"(?!var/)[a-z_.][\w.*-]*/(?:[\w.*-]+/)*(?:[\w*-]+\.(?:py|md|json|yaml|conf|sh))?"
    r"|(?:tests|bench|conf|schemas)/[\w./*-]+"
)

#: Folders that code paths are below: `gateway/admission/admission.py` is in the package.
_CODE_FOLDERS = (ROOT, ROOT / "tornado_proxy", DOCS)


def code_paths(page: Path) -> set[str]:
    """Return the code spans of a page that are paths."""
    return {span for span in code_spans(page) if _CODE_PATH.fullmatch(span)}


@pytest.mark.parametrize("page", pages(), ids=page_name)
def test_links_inside_the_project_exist(page: Path) -> None:
    for link in links(page):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} does not exist"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", [README, *sorted(DOCS.rglob("*.md"))], ids=page_name)
def test_code_paths_on_a_page_exist(page: Path) -> None:
    missing = [path for path in code_paths(page) if not any(any(folder.glob(path)) for folder in _CODE_FOLDERS)]

    assert sorted(missing) == []


def test_code_paths_are_told_from_other_code() -> None:
    paths = {path for page in DOCS.glob("*.md") for path in code_paths(page)}

    assert {
        "gateway/admission/admission.py",
        "gateway/http/relay.py",
        "providers/*/provider.py",
        "auth/",
        "tests/run",
    } <= paths
    assert not [path for path in paths if path.startswith(("v1/", "application/", "openai/", "var/"))]


def test_every_page_is_reached_from_the_readme() -> None:
    reached = {README}
    unread = [README]
    while unread:
        new = set(_linked_pages(unread.pop())) - reached
        reached |= new
        unread.extend(new)

    assert {page_name(page) for page in pages()} - {page_name(page) for page in reached} <= {"CHANGELOG.md"}


def _linked_pages(page: Path) -> Iterator[Path]:
    for link in links(page):
        target = (page.parent / link.partition("#")[0]).resolve()
        # docs/decisions/ is linked as a folder: GitHub lists its pages.
        if target.is_dir():
            yield from target.glob("*.md")
        elif target.suffix == ".md" and target.exists():
            yield target


def test_every_page_that_the_code_names_exists() -> None:
    sources = [ROOT / "setup.cfg"]
    for folder in ("tornado_proxy", "conf", "schemas", "bench", "tests", ".ci"):
        sources += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml", ".json", ".conf")]
    named = {page for path in sources for page in re.findall(r"\bdocs/[\w/-]+\.md", path.read_text("utf-8"))}

    # Fewer would mean that the pattern no longer finds them.
    assert len(named) > 10
    assert [page for page in sorted(named) if not (ROOT / page).exists()] == []
