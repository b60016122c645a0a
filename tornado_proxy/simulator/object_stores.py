"""Objects that outlive their request: responses, message batches and realtime calls.

The status of a response or batch follows from the clock and its end time, so no timer has to change it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tornado_proxy.simulator.json_values import Json
from tornado_proxy.simulator.model.prompt import Segment
from tornado_proxy.simulator.openai.responses.plan import ResponsePlan

Item = TypeVar("Item")

#: Objects of one kind in memory; the oldest are dropped beyond it.
MAX_OBJECTS = 10_000


class Store(Generic[Item]):
    """A bounded map from ids to objects."""

    def __init__(self) -> None:
        self._items: OrderedDict[str, Item] = OrderedDict()

    def put(self, key: str, item: Item) -> None:
        """Store `item`; it replaces an older one with that id."""
        self._items[key] = item
        # Load tests create responses without end; each holds its prompt.
        if len(self._items) > MAX_OBJECTS:
            self._items.popitem(last=False)

    def get(self, key: str) -> Item | None:
        """Return the object, or None."""
        return self._items.get(key)

    def pop(self, key: str) -> Item | None:
        """Remove and return the object; return None if it does not exist."""
        return self._items.pop(key, None)

    def newest_first(self) -> Iterator[Item]:
        """Iterate over all objects, newest first."""
        return reversed(list(self._items.values()))


@dataclass(slots=True)
class StoredResponse:
    """A response of the Responses API.  `ready_at` is monotonic seconds; until then it is in progress."""

    plan: ResponsePlan
    input_items: list[Json]
    history: tuple[Segment, ...]
    ready_at: float
    cancelled: bool = False


@dataclass(slots=True)
class Batch:
    """A message batch.  `ends_at` is monotonic seconds; `created`, `expires` and `ended` are RFC 3339.

    It is found with keys of its `account`.
    """

    id: str
    created: str
    expires: str
    ends_at: float
    ended: str
    results: list[Json] = field(default_factory=list)
    cancel_initiated: str | None = None
    account: str = ""


@dataclass(slots=True)
class RealtimeCall:
    """A realtime call and the connections that are attached to it: sidebands, and the data channel if it has media.

    Attributes:
        on_end: called once, when the call ends.
        handle: the event handler of the connection that attached first and owns the session; None without one.
        listeners: the other connections, which get a copy of each message of the first.
        created: the owner's `session.created`, b"" until a connection owns the session.
    """

    session: Json
    on_end: list[Callable[[], None]] = field(default_factory=list)
    handle: Callable[[Mapping[str, object]], Awaitable[None]] | None = None
    listeners: list[Callable[[bytes], Awaitable[None]]] = field(default_factory=list)
    created: bytes = b""

    def hang_up(self) -> None:
        """End the call: run the `on_end` callbacks, unless it has ended."""
        callbacks, self.on_end = self.on_end, []
        for callback in callbacks:
            callback()


#: Answers the SDP offer of a realtime call, and attaches its data channel to the call: (offer, call) -> SDP answer.
AnswerCall = Callable[[str, RealtimeCall], Awaitable[str]]
