"""Time of code execution: a container that a message used, and requests beside which it is free.

A message names the container in its member `container`, with or without a run of the tool: files that the request
uploads to it are charged as well.  `usage` does not state the time.

Source: Claude pricing page, "Code execution tool"; Claude docs, "Code execution tool", "Usage and pricing".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.terms import NO_TERMS
from tornado_proxy.domain.usage import ContainerUse
from tornado_proxy.providers.shared.json_values import as_object, as_text

#: The estimate method of a container's time.
CONTAINER_METHOD = "container_minimum"

#: Types of the tool begin like this; a date follows.
_CODE_EXECUTION_PREFIX = "code_execution_"

#: Tools beside which code execution is free, in versions of this date and later.
_FREE_BESIDE = ("web_search_", "web_fetch_")
_FREE_SINCE = "20260209"

#: Digits of the date at the end of a tool's type.
_DATE_DIGITS = 8


def charges_code_execution(tool_types: Iterable[str]) -> bool:
    """Return True if the time of code execution is charged in a request with tools of these types.

    Searches run code in a container even without the tool, which is free.
    """
    names = tuple(tool_types)
    declared = any(name.startswith(_CODE_EXECUTION_PREFIX) for name in names)
    return declared and not any(_is_dated_since(name, prefix) for name in names for prefix in _FREE_BESIDE)


def container_id_of(message: Mapping[str, object]) -> str | None:
    """Return the id of the container that a message used."""
    return as_text(as_object(message.get("container")).get("id"))


def read_container(message: Mapping[str, object], facts: RequestFacts) -> tuple[ContainerUse, ...]:
    """Return the container that a message used and that is charged by its time."""
    container_id = container_id_of(message)
    if container_id is None or not facts.charges_code_execution:
        return ()
    note = f"container {container_id} was used; the response does not state its time"
    return (ContainerUse(container_id, NO_TERMS, note),)


def _is_dated_since(name: str, prefix: str) -> bool:
    date = name.removeprefix(prefix)
    return name.startswith(prefix) and len(date) == _DATE_DIGITS and date.isdigit() and date >= _FREE_SINCE
