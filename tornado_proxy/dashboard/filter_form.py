"""The form of a page that selects requests: its time and its filters.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tornado_proxy.dashboard.bill.bill_request import FILTERS, GROUP_TITLES
from tornado_proxy.dashboard.parameters import PageUrl
from tornado_proxy.dashboard.time_span import RANGE_TITLES, TimeSpan

#: The filters that the form always offers; those of the URL are there as well.
_OFFERED_FILTERS = ("model", "participant", "user", "room", "basis")


@dataclass(frozen=True, slots=True)
class FilterForm:
    """The form.  `is_open` is True if a field of the page's own, which is folded away otherwise, has a value."""

    link: PageUrl
    span: TimeSpan
    filters: Mapping[str, str]
    is_open: bool = False

    @property
    def project(self) -> str | None:
        """The project that the URL names; a field of the form keeps it."""
        return None if "project" in self.filters else self.link.parameters.get("project")

    @property
    def ranges(self) -> list[tuple[str, str, bool]]:
        """The title and the URL of each named range, and True for the one that is shown."""
        return [
            (title, self.link.change(range=name, start=None, end=None, before=None), name == self.span.name)
            for name, title in RANGE_TITLES.items()
        ]

    @property
    def start(self) -> str:
        """The start of a span that the URL states, "" for a named one."""
        return self.span.parameters.get("start", "")

    @property
    def end(self) -> str:
        """The end of a span that the URL states, "" for a named one."""
        return self.span.parameters.get("end", "")

    @property
    def has_details(self) -> bool:
        """True if a field has a value that is folded away otherwise."""
        return bool(self.filters or self.start or self.is_open)

    @property
    def fields(self) -> list[tuple[str, str, str]]:
        """The name, title and value of each filter."""
        return [
            (name, GROUP_TITLES.get(name) or name.replace("_", " ").capitalize(), self.filters.get(name, ""))
            for name in FILTERS
            if name in self.filters or name in _OFFERED_FILTERS
        ]
