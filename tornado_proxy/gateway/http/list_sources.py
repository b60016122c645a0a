"""Finds the requests whose responses together are a list of the objects that several provider keys made.

    key 1 ── objects of key 1, and those of no known key ──> key 2 ── objects of key 2 ──> ...

Keys of one account list the same objects.  Each object is shown in the list of the key that made it, so it is shown
once.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from tornado_proxy.domain.identity import KeyId
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.providers.contract import HttpEndpoint
from tornado_proxy.providers.owned_objects import OwnedList
from tornado_proxy.upstream.credentials import Headers, ProviderAccess, list_accesses
from tornado_proxy.upstream.http.messages import UpstreamRequest

#: The cursor towards the end of a list; one towards its start does not lead to another key.
_FORWARD, _BACKWARD = "after_id", "before_id"


@dataclass(frozen=True, slots=True)
class ListSource:
    """A request for a list, and the objects of its response that the client may see."""

    request: UpstreamRequest
    visible: Container[str]


class AllBut:
    """Contains every id but some."""

    def __init__(self, excluded: frozenset[str]) -> None:
        self._excluded = excluded

    def __contains__(self, object_id: object) -> bool:
        return object_id not in self._excluded


def find_list_accesses(context: RequestContext[HttpEndpoint], made_with: KeyId | None) -> tuple[ProviderAccess, ...]:
    """Return the keys that a list is requested with, from that of its cursor; none if one key is enough.

    Raises:
        ServiceError: the server is not configured for the provider.
    """
    if not isinstance(context.endpoint.objects, OwnedList):
        return ()
    accesses = list_accesses(context.snapshot, context.provider, context.caller.project_id)
    start = next((n for n, access in enumerate(accesses) if made_with is not None and access.uses(made_with)), 0)
    return accesses[start:] if len(accesses) > 1 else ()


def make_list_sources(
    context: RequestContext[HttpEndpoint],
    accesses: Sequence[ProviderAccess],
    headers: Headers,
    made_with: Mapping[str, KeyId],
    visible: frozenset[str] | None,
) -> tuple[ListSource, ...]:
    """Return the sources of a list, the client's own request first; none without `accesses`.

    Args:
        context: The client's request.
        accesses: The result of find_list_accesses().
        headers: The headers to forward.
        made_with: The key of each object that the project created.
        visible: All objects that the client may see, None for all of the account.
    """
    if not accesses:
        return ()
    places = {object_id: _find_place(accesses, key) for object_id, key in made_with.items()}
    elsewhere = frozenset(object_id for object_id, place in places.items() if place != 0)
    first = AllBut(elsewhere) if visible is None else visible - elsewhere
    sources = [ListSource(accesses[0].client_request("GET", context.upstream_target, headers, b""), first)]
    path, _, query = context.upstream_target.partition("?")
    parameters = parse_qsl(query, keep_blank_values=True)
    if any(name == _BACKWARD for name, _ in parameters):
        return tuple(sources)
    rest = urlencode([(name, value) for name, value in parameters if name != _FORWARD])
    target = f"{path}?{rest}" if rest else path
    for number, access in enumerate(accesses[1:], 1):
        own = frozenset(object_id for object_id, place in places.items() if place == number)
        if own:
            sources.append(ListSource(access.client_request("GET", target, headers, b""), own))
    return tuple(sources)


def _find_place(accesses: Sequence[ProviderAccess], key: KeyId) -> int | None:
    """Return the number of the access with a key; None if it is none of them."""
    found = [number for number, access in enumerate(accesses) if access.uses(key)]
    return found[0] if found else None
