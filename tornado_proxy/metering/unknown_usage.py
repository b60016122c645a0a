"""Finds counts in usage that no reader knows.

A provider can begin to state a new quantity at any time.  If it has a price of its own, the bill would be too low, and
nothing would say so.  So each name of a number above zero in usage must be one that the provider's readers know, as a
quantity or as a part of one; any other is a note of the record, a metric and, once for each name, a line in the log.
"""

from __future__ import annotations

import logging
import re

from tornado_proxy.observability import metrics
from tornado_proxy.providers.registry import PROVIDERS

_log = logging.getLogger(__name__)

#: A member whose value begins as a number above zero does, in JSON without white space; a quotation mark inside a
#: string has a backslash before it.  The name is possessive (`+`): to try its shorter beginnings takes as long again.
_COUNT = re.compile(r'"([^"\\]{1,64}+)":([1-9][0-9]{0,17})')
#: Its name alone.
_NAME = re.compile(r'"([^"\\]{1,64}+)":[1-9]')

#: Characters of usage that are searched: a batch has the usage of thousands of requests, which state the same names.
_MAX_CHARACTERS = 16 * 1024

#: Names that are told of at most: a response could state a new one each time.
_MAX_NAMES = 100

_known_names = {provider.name: provider.usage_counts for provider in PROVIDERS}
_told: set[tuple[str, str]] = set()


def note_unknown_counts(provider: str, usage: str | None) -> tuple[str, ...]:
    """Return a note for each count in `usage` (JSON text) that the readers of `provider` do not know."""
    known = _known_names.get(provider)
    if usage is None or known is None:
        return ()
    if known.issuperset(_NAME.findall(usage, 0, _MAX_CHARACTERS)):  # nearly always
        return ()
    counts = dict(_COUNT.findall(usage, 0, _MAX_CHARACTERS))
    return tuple(_note(provider, name, number) for name, number in counts.items() if name not in known)


def _note(provider: str, name: str, number: str) -> str:
    metrics.UNKNOWN_USAGE.labels(provider).inc()
    if (provider, name) not in _told and len(_told) < _MAX_NAMES:
        _told.add((provider, name))
        _log.warning("usage states an unknown count", extra={"provider": provider, "name_of_count": name})
    return f"usage states {number} {name}, which this version does not know: they are charged only as a part of others"
