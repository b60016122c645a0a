"""Whose is it?  Projects share a provider key, so the provider shows each of them every project's objects; we do not.

What a project created is known from the ledger, and before its record is there from memory.  An object of another
project, or of nobody, is not found, in the words the provider would use.  A project with its own key for a provider is
kept apart by that key.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from tornado_proxy.domain.errors import NotFound
from tornado_proxy.gateway.admission import RequestContext
from tornado_proxy.ledger.protocol import Ledger
from tornado_proxy.providers.contract import Endpoint, HttpEndpoint, OwnedList, OwnedObject

#: Objects that are remembered without asking the ledger, the least lately created forgotten first.
_REMEMBERED = 10_000


class Ownership:
    """Knows which project created which of the providers' objects."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lately: OrderedDict[tuple[str, str], str] = OrderedDict()

    def remember(self, provider: str, object_id: str, project_id: str) -> None:
        """`object_id` was created by the project; known at once, before the record says so."""
        self._lately[provider, object_id] = project_id
        if len(self._lately) > _REMEMBERED:
            self._lately.popitem(last=False)

    async def require(self, entry: RequestContext[Endpoint], references: Iterable[str]) -> None:
        """Check the object in the path and those that the body refers to.

        Raises:
            NotFound: one of them is not the project's.
        """
        if _has_own_key(entry):
            return
        for object_id in (*_object_in_path(entry), *references):
            if not await self._is_own(entry, object_id):
                raise NotFound(f"{object_id[:100]} was not found")

    async def made_here(self, entry: RequestContext[Endpoint], references: Iterable[str]) -> bool:
        """Whether one of these was created through this proxy, by whatever project; not what is only allowed."""
        provider = entry.match.provider.name
        for object_id in references:
            if await self._owner(provider, object_id) is not None:
                return True
        return False

    async def own_list(self, entry: RequestContext[Endpoint]) -> frozenset[str] | None:
        """The objects that a list may show; None where it may show all."""
        endpoint = entry.match.endpoint
        if not isinstance(endpoint, HttpEndpoint) or not isinstance(endpoint.objects, OwnedList) or _has_own_key(entry):
            return None
        own = await self._ledger.owned_by(
            entry.caller.project_id, entry.match.provider.name, endpoint.objects.created_by
        )
        return own | _allowed(entry)

    async def _is_own(self, entry: RequestContext[Endpoint], object_id: str) -> bool:
        provider = entry.match.provider.name
        if object_id in _allowed(entry):
            return True
        return await self._owner(provider, object_id) == entry.caller.project_id

    async def _owner(self, provider: str, object_id: str) -> str | None:
        return self._lately.get((provider, object_id)) or await self._ledger.owner_of(provider, object_id)


def _object_in_path(entry: RequestContext[Endpoint]) -> tuple[str, ...]:
    endpoint, path_id = entry.match.endpoint, entry.match.path_id
    owned = isinstance(endpoint, HttpEndpoint) and isinstance(endpoint.objects, OwnedObject)
    return (path_id,) if owned and path_id is not None else ()


def _has_own_key(entry: RequestContext[Endpoint]) -> bool:
    return entry.match.provider.name in entry.snapshot.projects[entry.caller.project_id].provider_keys


def _allowed(entry: RequestContext[Endpoint]) -> frozenset[str]:
    return entry.snapshot.projects[entry.caller.project_id].allowed_objects
