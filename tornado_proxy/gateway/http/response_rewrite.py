"""Rewrites whole response bodies: lists are cut to the caller's objects and models, and URLs lead to the proxy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from tornado_proxy.domain.errors import UpstreamError
from tornado_proxy.domain.identity import Secret, SessionGrant
from tornado_proxy.domain.units import MIB
from tornado_proxy.gateway.admission.admitted import AdmittedRequest
from tornado_proxy.gateway.admission.model_visibility import usable_model
from tornado_proxy.providers.contract import ResponseEdit
from tornado_proxy.providers.owned_objects import ModelList
from tornado_proxy.providers.shared.list_filter import keep_entries

#: Takes a whole body, returns a whole body.
Rewrite = Callable[[bytes], bytes]


#: Bytes of a body that is held to be rewritten.  The longest list of batches (1,000) has 2 MB; a provider that sends
#: more than this is broken or hostile, and rewriting takes several times the memory.
MAX_HELD_BYTES = 8 * MIB


class WholeBodyEdit:
    """Holds a body until it is complete, then applies `rewrites` in order.  A list has some 50 KB, a batch 1 KB."""

    def __init__(self, rewrites: Sequence[Rewrite]) -> None:
        self._rewrites = rewrites
        self._chunks: list[bytes] = []
        self._held_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """Keep the next bytes; return b"".

        Raises:
            UpstreamError: the body is too large to be held.
        """
        self._held_bytes += len(data)
        if self._held_bytes > MAX_HELD_BYTES:
            self._chunks.clear()
            raise UpstreamError(
                f"the provider's response is larger than {MAX_HELD_BYTES // MIB} MiB "
                "and cannot be cut to what you may see"
            )
        self._chunks.append(data)
        return b""

    def close(self) -> bytes:
        """Return the rewritten body."""
        return functools.reduce(lambda body, rewrite: rewrite(body), self._rewrites, b"".join(self._chunks))


def make_rewrite(admitted: AdmittedRequest, base_url: Callable[[], str]) -> ResponseEdit | None:
    """Return the edit of a whole response body, None if it passes unchanged.

    `base_url` returns the URL under which the client reaches the provider here.
    """
    rewrites = [*_list_rewrites(admitted), *_content_rewrites(admitted, base_url)]
    return WholeBodyEdit(rewrites) if rewrites else None


def _list_rewrites(admitted: AdmittedRequest) -> list[Rewrite]:
    context, visible = admitted.context, admitted.visible_objects
    if visible is not None:
        return [lambda body: keep_entries(body, visible.__contains__)]
    if isinstance(context.endpoint.objects, ModelList) and context.snapshot.settings.models_list != "provider":
        return [lambda body: keep_entries(body, lambda model: usable_model(context, model))]
    return []


def _content_rewrites(admitted: AdmittedRequest, base_url: Callable[[], str]) -> list[Rewrite]:
    edits = admitted.context.endpoint.response_edits
    rewrites: list[Rewrite] = []
    if edits.rewrite_urls is not None:
        rewrite_urls = edits.rewrite_urls
        rewrites.append(lambda body: rewrite_urls(body, base_url()))
    if edits.seal_secrets is not None:
        seal_secrets = edits.seal_secrets
        rewrites.append(lambda body: seal_secrets(body, functools.partial(_session_key, admitted)))
    return rewrites


def _session_key(admitted: AdmittedRequest, provider_key: str, expires_at: int) -> str:
    """Return the key of ours that replaces a short-lived key of the provider."""
    context = admitted.context
    grant = SessionGrant(Secret(provider_key), admitted.facts.session_query or "", admitted.access.made_with)
    return context.snapshot.authenticator.seal_session(context.caller, grant, expires_at)
