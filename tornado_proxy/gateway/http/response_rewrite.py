"""Answers that are changed as a whole: lists are cut to what the caller may see, and addresses are our own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from tornado_proxy.domain.identity import Secret, SessionGrant
from tornado_proxy.gateway.admission import AdmittedRequest, usable_model
from tornado_proxy.providers.contract import ResponseEdit
from tornado_proxy.providers.shared.list_filter import keep_entries, own_cursors

_MODELS = "/v1/models"

#: A whole body to a whole body.
Change = Callable[[bytes], bytes]


class _WholeBody:
    """Holds a body until it is whole, then changes it.  A list has some 50 KB, a batch 1 KB."""

    def __init__(self, changes: Sequence[Change]) -> None:
        self._changes = changes
        self._chunks: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        self._chunks.append(data)
        return b""

    def close(self) -> bytes:
        return functools.reduce(lambda body, change: change(body), self._changes, b"".join(self._chunks))


def whole_body_edit(
    admitted: AdmittedRequest, own: frozenset[str] | None, base_url: Callable[[], str]
) -> ResponseEdit | None:
    """The edit of an answer, None where it passes as it comes.

    `own` are the objects of the project where the answer lists such; `base_url` says where the client finds the
    provider here.
    """
    entry = admitted.entry
    endpoint = entry.match.endpoint
    changes: list[Change] = []
    if own is not None:
        changes.append(lambda body: own_cursors(keep_entries(body, own.__contains__)))
    elif endpoint.path == _MODELS and entry.snapshot.settings.models_list != "provider":
        changes.append(lambda body: keep_entries(body, lambda model: usable_model(entry, model)))
    rewrite_urls, seal_secrets = endpoint.response_edits.rewrite_urls, endpoint.response_edits.seal_secrets
    if rewrite_urls is not None:
        changes.append(lambda body: rewrite_urls(body, base_url()))
    if seal_secrets is not None:
        changes.append(lambda body: seal_secrets(body, lambda key, until: _session_key(admitted, key, until)))
    return _WholeBody(changes) if changes else None


def _session_key(admitted: AdmittedRequest, provider_key: str, expires_at: int) -> str:
    """The key of ours that stands for a short-lived one of the provider."""
    grant = SessionGrant(Secret(provider_key), admitted.facts.session_query or "")
    entry = admitted.entry
    return entry.snapshot.authenticator.seal_session(entry.caller, grant, expires_at)
