"""Finds the API key that signs a project's tokens; no other secret of the configuration is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tornado_proxy.config.findings import Findings
from tornado_proxy.config.secrets import read_secrets
from tornado_proxy.domain.config.document import Document
from tornado_proxy.domain.errors import ConfigError
from tornado_proxy.domain.identity import ApiKey


def find_signing_key(documents: Sequence[Document], project_id: str) -> ApiKey | None:
    """Return the first key of a project that is not disabled; None if the project is unknown or has no such key.

    Args:
        documents: The checked documents with the projects.
        project_id: The id of the project.

    Raises:
        ConfigError: the key's secret cannot be read.
    """
    for document, index, section in _list_projects(documents):
        if section["id"] != project_id:
            continue
        for number, key in enumerate(section.get("api_keys", ())):
            if not key.get("disabled", False):
                return _read_key(document, ("projects", index, "api_keys", number), project_id, key["id"])
    return None


def _list_projects(documents: Sequence[Document]) -> Iterator[tuple[Document, int, Any]]:
    for document in documents:
        content: Any = document.content
        for index, section in enumerate(content["projects"]):
            yield document, index, section


def _read_key(document: Document, path: tuple[str | int, ...], project_id: str, key_id: str) -> ApiKey:
    findings = Findings()
    secret = read_secrets(document, path, findings).get((*path, "secret"))
    if secret is None:
        raise ConfigError(findings.faults)
    return ApiKey(key_id, project_id, secret)
