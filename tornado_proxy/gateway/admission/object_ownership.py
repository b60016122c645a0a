"""Maps provider object ids to projects.

Projects share a provider key, so the provider shows each of them every project's objects.  The proxy does not: an
object of another project, or one of unknown origin, is not found, in the provider's own error format.  Requests to a
project's own account are separated by its key; those to the shared account are checked, also of such a project.  An
object that another project made with a key which is this project's alone now is not found either.

Owners come from the ledger, and from memory until the record of the creating request is written.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Protocol
from urllib.parse import parse_qsl

from tornado_proxy.domain.errors import ContinuedNotFound, NotFound
from tornado_proxy.domain.identity import KeyId
from tornado_proxy.domain.record import ObjectOwner
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.providers.contract import Endpoint, HttpEndpoint
from tornado_proxy.providers.owned_objects import OwnedList
from tornado_proxy.upstream.credentials import ProviderAccess, caller_access, list_accesses

#: Owners kept in memory.  They bridge the commit delay of the ledger, far below a second; 10,000 take some 2 MB.
MAX_REMEMBERED = 10_000

#: Query parameters that name an object (Anthropic API reference, "List Message Batches").
_CURSORS = frozenset({"after_id", "before_id"})


class ObjectLedger(Protocol):
    """The ledger, as far as ownership needs it."""

    async def owner_of(self, provider: str, object_id: str) -> ObjectOwner | None:
        """Return the project that created an object and the key that it was made with, None if unknown."""

    async def keys_of(self, project_id: str, provider: str, endpoint: str) -> Mapping[str, KeyId]:
        """Return the keys that made the objects of owned_by(), by their ids."""

    async def owned_by(self, project_id: str, provider: str, endpoint: str) -> frozenset[str]:
        """Return the objects that a project created with requests to `endpoint`."""


class ObjectOwnership:
    """Knows which project created which provider object, and with which provider key."""

    def __init__(self, ledger: ObjectLedger) -> None:
        self._ledger = ledger
        self._recent: OrderedDict[tuple[str, str], ObjectOwner] = OrderedDict()

    def remember(self, provider: str, object_id: str, project_id: str, key: KeyId | None = None) -> None:
        """Remember that a project created an object with `key`, unless it has an owner.

        The oldest entry is dropped above MAX_REMEMBERED.
        """
        self._recent.setdefault((provider, object_id), ObjectOwner(project_id, key))
        if len(self._recent) > MAX_REMEMBERED:
            self._recent.popitem(last=False)

    async def require_own(
        self,
        context: RequestContext[Endpoint],
        references: Iterable[str],
        access: ProviderAccess | None = None,
        *,
        continues: str | None = None,
    ) -> KeyId | None:
        """Check the object in the path and those that the body refers to.

        Return the provider key that made the first of them whose key is known: the request must use it.

        Args:
            context: The request.
            references: The ids of the objects that the body, or the frame of a session, refers to.
            access: The access of the session; None for a request, whose access follows from the result.
            continues: The one of `references` whose conversation the request continues.

        Raises:
            NotFound: one of them is not the project's own, and the account is not the project's alone.
        """
        object_ids = (*_object_in_path(context), *_find_cursors(context), *references)
        owners = {object_id: await self._find_owner(context.provider.name, object_id) for object_id in object_ids}
        own = {object_id: owner for object_id, owner in owners.items() if _is_own(context, object_id, owner)}
        made_with = next((owner.key for owner in own.values() if owner is not None and owner.key is not None), None)
        if access is None and (made_with is not None or context.caller.session is not None):
            access = _find_access(context, made_with, continues)
        # A project that has an account of its own can have made the first object in the shared one.
        if not (context.has_own_key if access is None else access.exclusive):
            for object_id in object_ids:
                if object_id not in own or _is_of_own_account(own[object_id], access):
                    raise _not_found(object_id, continues)
        for object_id, owner in owners.items():
            if object_id not in own and owner is not None and _is_of_key(owner, context, access):
                raise _not_found(object_id, continues)
        return made_with

    async def visible_objects(
        self, context: RequestContext[HttpEndpoint], access: ProviderAccess
    ) -> frozenset[str] | None:
        """Return the objects that the response to a request with `access` may list.

        Return None if it is no list or may list all.
        """
        objects = context.endpoint.objects
        if not isinstance(objects, OwnedList) or access.exclusive:
            return None
        own = await self._ledger.owned_by(context.caller.project_id, context.provider.name, objects.created_by)
        return own | context.project.allowed_objects

    async def keys_of_list(self, context: RequestContext[HttpEndpoint]) -> Mapping[str, KeyId]:
        """Return the keys that made the project's objects of a list, as far as they are known, by their ids."""
        objects = context.endpoint.objects
        assert isinstance(objects, OwnedList), "called for lists of objects only"
        return await self._ledger.keys_of(context.caller.project_id, context.provider.name, objects.created_by)

    async def _find_owner(self, provider: str, object_id: str) -> ObjectOwner | None:
        # The ledger first: its owner is the first one, and a provider may repeat an id to another project.
        return await self._ledger.owner_of(provider, object_id) or self._recent.get((provider, object_id))


def _find_access(context: RequestContext[Endpoint], made_with: KeyId | None, continues: str | None) -> ProviderAccess:
    """Return the access with the key `made_with`; raise NotFound if it is not configured any more."""
    try:
        return caller_access(context.snapshot, context.provider, context.caller, made_with)
    except NotFound:
        if continues is None:
            raise
        raise _not_found(continues, continues) from None


def _not_found(object_id: str, continues: str | None) -> NotFound:
    shown = object_id[:100]
    return ContinuedNotFound(shown) if object_id == continues else NotFound(f"{shown} was not found")


def _is_of_key(owner: ObjectOwner, context: RequestContext[Endpoint], access: ProviderAccess | None) -> bool:
    """Return True if the object of another project was made with a key that the project uses now.

    Two projects can have had one key.  When the other one has lost it, no other project uses the key, but the other
    one's objects are still in its account.  Ids alone say nothing: hosts of two accounts can state the same ones.
    """
    account = access or list_accesses(context.snapshot, context.provider, context.caller.project_id)[0]
    keys = account.settings.keys
    return owner.key is not None and any(key.fingerprint == owner.key.fingerprint for key in keys)


def _is_own(context: RequestContext[Endpoint], object_id: str, owner: ObjectOwner | None) -> bool:
    own = owner is not None and owner.project_id == context.caller.project_id
    return own or object_id in context.project.allowed_objects


def _is_of_own_account(owner: ObjectOwner | None, access: ProviderAccess | None) -> bool:
    """Return True if the object was made in the project's own account, and the request goes to the shared one.

    The host of a project's own account can state any id; that must not make an object of the shared account its own.
    """
    key = owner.key if owner is not None else None
    return key is not None and key.own and access is not None and not access.holds(key)


def _find_cursors(context: RequestContext[Endpoint]) -> tuple[str, ...]:
    """Return the ids at which the query of a list continues; one of another project would show when it was created."""
    endpoint = context.endpoint
    if not isinstance(endpoint, HttpEndpoint) or not isinstance(endpoint.objects, OwnedList):
        return ()
    return tuple(value for name, value in parse_qsl(context.query) if name in _CURSORS)


def _object_in_path(context: RequestContext[Endpoint]) -> tuple[str, ...]:
    endpoint = context.endpoint
    path_id = endpoint.owned_object(context.path_id) if isinstance(endpoint, HttpEndpoint) else None
    return () if path_id is None else (path_id,)
