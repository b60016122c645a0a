"""Cuts a provider's list of models down to what the caller can really use."""

from __future__ import annotations

from tornado_proxy.auth.permissions import allows
from tornado_proxy.providers.endpoint import BodyEdit
from tornado_proxy.providers.models_list import keep_models
from tornado_proxy.web.admission import Admitted

_LIST = "/v1/models"


class _ModelsEdit:
    """Holds the list until it is whole: entries can only be cut out of a whole one.  A list is some 50 KB."""

    def __init__(self, admitted: Admitted) -> None:
        self._admitted = admitted
        self._chunks: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        self._chunks.append(data)
        return b""

    def close(self) -> bytes:
        return keep_models(b"".join(self._chunks), self._usable)

    def _usable(self, model: str) -> bool:
        entry = self._admitted.entry
        provider = entry.match.provider.name
        project = entry.snapshot.projects[entry.caller.project_id]
        return (
            entry.snapshot.prices.resolve(provider, model) is not None
            and allows(entry.caller.granted, provider, model)
            and allows(project.models, provider, model)
        )


def models_edit(admitted: Admitted) -> BodyEdit | None:
    """The edit for a model list, None for every other endpoint and where the config leaves the provider's bytes."""
    endpoint = admitted.entry.match.endpoint
    if endpoint.path != _LIST or admitted.entry.snapshot.settings.models_list == "provider":
        return None
    return _ModelsEdit(admitted)
