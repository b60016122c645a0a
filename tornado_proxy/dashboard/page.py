"""The frame of a page: its title, its links, whose usage it shows."""

from __future__ import annotations

from dataclasses import dataclass

from tornado_proxy.dashboard.parameters import make_url
from tornado_proxy.dashboard.viewer import Viewer


@dataclass(frozen=True, slots=True)
class PageLink:
    """A link to a page."""

    title: str
    url: str
    is_current: bool


@dataclass(frozen=True, slots=True)
class Page:
    """The frame of a page.

    Attributes:
        base: The path of the dashboard.
        viewer: None on a page that shows no usage.
        name: The name of the page, one of PAGES.
    """

    title: str
    base: str
    viewer: Viewer | None = None
    name: str = ""
    links: tuple[PageLink, ...] = ()


#: The pages by name: title and path below that of the dashboard.
PAGES = {
    "bill": ("Bill", "/"),
    "requests": ("Requests", "/requests"),
    "now": ("Now", "/now"),
    "open": ("Open costs", "/open"),
    "budgets": ("Budgets", "/budgets"),
    "prices": ("Keys and prices", "/prices"),
}

#: The pages that only the operator and admins of projects have.
ADMIN_PAGES = frozenset({"prices"})


def list_links(base: str, viewer: Viewer | None, name: str) -> tuple[PageLink, ...]:
    """Return the links to the pages of a viewer, with the project that it has chosen."""
    if viewer is None:
        return ()
    project = {"project": viewer.project_parameter}
    return tuple(
        PageLink(title, make_url(base + path, project), page == name)
        for page, (title, path) in PAGES.items()
        if viewer.sees_project or page not in ADMIN_PAGES
    )
