"""Cuts a provider's lists down to what the caller can really use: models, and objects of its own project."""

from __future__ import annotations

from collections.abc import Callable

from tornado_proxy.providers.endpoint import BodyEdit
from tornado_proxy.providers.entry_lists import keep_entries
from tornado_proxy.web.admission import Admitted, usable_model

_MODELS = "/v1/models"


class _ListEdit:
    """Holds a list until it is whole: entries can only be cut out of a whole one.  A list has some 50 KB."""

    def __init__(self, keep: Callable[[str], bool]) -> None:
        self._keep = keep
        self._chunks: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        self._chunks.append(data)
        return b""

    def close(self) -> bytes:
        return keep_entries(b"".join(self._chunks), self._keep)


def list_edit(admitted: Admitted, own: frozenset[str] | None) -> BodyEdit | None:
    """The edit for a list, None where the answer is not one or passes as it comes.  `own` are the project's objects."""
    entry = admitted.entry
    if own is not None:
        return _ListEdit(own.__contains__)
    if entry.match.endpoint.path != _MODELS or entry.snapshot.settings.models_list == "provider":
        return None
    return _ListEdit(lambda model: usable_model(entry, model))
