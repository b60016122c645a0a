"""Compares the member names of an SDK's request types with a provider's list of them."""

from __future__ import annotations

import typing
from types import ModuleType
from typing import Any

from typing_extensions import is_typeddict

#: The lists of a provider's `request_members.py`; each member of its requests is in one of them.
LISTS = ("REFERENCES", "REFERENCE_OBJECTS", "OPAQUE", "MODELS", "TOOLS", "PRICES", "NEUTRAL")


def undecided_members(request_members: ModuleType, *request_types: Any) -> set[str]:
    """Return the members of these types that are in none of the provider's lists."""
    return member_names(*request_types).difference(*(getattr(request_members, name) for name in LISTS))


def member_names(*request_types: Any) -> set[str]:
    """Return the names of all members that values of these types can have, at any depth."""
    names: set[str] = set()
    seen: set[Any] = set()
    for request_type in request_types:
        _collect(request_type, names, seen)
    return names


def _collect(annotation: Any, names: set[str], seen: set[Any]) -> None:
    if typing.get_origin(annotation) is not None:
        for argument in typing.get_args(annotation):
            _collect(argument, names, seen)
    # typing.is_typeddict() is False for the SDKs' types, which are those of typing_extensions.
    elif is_typeddict(annotation) and annotation not in seen:
        seen.add(annotation)
        for name, member in typing.get_type_hints(annotation).items():
            names.add(name)
            _collect(member, names, seen)
