"""How a provider's requests name objects and models: data of its folder (providers/*/request_members.py)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class MemberRules:
    """How a provider's requests name objects and models.

    Attributes:
        references: Members whose value is an id, a list of ids, or an object with an `id`.
        item_members: Members that `item_reference` reads an id from.
        reference_objects: Members that refer to an object only if their value is an object with an `id`.
        opaque: Members that hold JSON of the caller's own.
        item_reference: Returns the id of the object that an item refers to, None if the item has content of its own.
        skip: Returns True for an object that repeats output of the provider, whose ids are no references.
        names: The names of `references`, `item_members` and `reference_objects`.
        names_pattern: Finds one of them, or `model`, between quotation marks, without the second one: texts share it.
    """

    references: frozenset[str]
    item_members: frozenset[str]
    reference_objects: frozenset[str]
    opaque: frozenset[str]
    item_reference: Callable[[Mapping[str, object]], str | None]
    skip: Callable[[Mapping[str, object]], bool]
    names: frozenset[bytes] = field(init=False, repr=False, compare=False)
    names_pattern: re.Pattern[bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = sorted({*self.references, *self.item_members, *self.reference_objects})
        pattern = b'"(?:%s)(?=")' % b"|".join(re.escape(name.encode()) for name in (*names, "model"))
        object.__setattr__(self, "names", frozenset(name.encode() for name in names))
        object.__setattr__(self, "names_pattern", re.compile(pattern))


def split_names(text: str) -> frozenset[str]:
    """Return the member names in `text`, which are separated by spaces and line ends."""
    return frozenset(text.split())
