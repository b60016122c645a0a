"""Objects that outlive their request: responses and message batches.  Their state is a function of the clock."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tornado_proxy.simulator.json_values import Json
from tornado_proxy.simulator.model.prompt import Segment
from tornado_proxy.simulator.openai.responses.plan import ResponsePlan

Item = TypeVar("Item")

#: Objects of one kind that are kept; the oldest go.
_KEPT = 10_000


class Store(Generic[Item]):
    """Objects by id, bounded."""

    def __init__(self) -> None:
        self._items: OrderedDict[str, Item] = OrderedDict()

    def put(self, key: str, item: Item) -> None:
        """Keep `item`, in the place of an older one of that id."""
        self._items[key] = item
        if len(self._items) > _KEPT:
            self._items.popitem(last=False)

    def get(self, key: str) -> Item | None:
        """The object, None if there is none."""
        return self._items.get(key)

    def pop(self, key: str) -> Item | None:
        """Remove the object and give it."""
        return self._items.pop(key, None)

    def newest_first(self) -> Iterator[Item]:
        """All objects."""
        return reversed(list(self._items.values()))


@dataclass(slots=True)
class StoredResponse:
    """A response of the Responses API.  `ready_at` is monotonic seconds; before it a background response is running."""

    plan: ResponsePlan
    input_items: list[Json]
    history: tuple[Segment, ...]
    ready_at: float
    cancelled: bool = False


@dataclass(slots=True)
class Batch:
    """A message batch.  `ends_at` is monotonic seconds; `created` and the like are RFC 3339."""

    id: str
    created: str
    expires: str
    ends_at: float
    ended: str
    results: list[Json] = field(default_factory=list)
    cancel_initiated: str | None = None


@dataclass(slots=True)
class Call:
    """A realtime call; `on_end` are told when it is hung up.

    Who listens first leads: `handle` is its answer to client events, None while nobody listens; `listeners` take a copy
    of each of its frames.
    """

    session: Json
    on_end: list[Callable[[], None]] = field(default_factory=list)
    handle: Callable[[Mapping[str, object]], Awaitable[None]] | None = None
    listeners: list[Callable[[bytes], Awaitable[None]]] = field(default_factory=list)

    def hang_up(self) -> None:
        """End it."""
        for tell in self.on_end:
            tell()
