"""Builds projects from checked documents, and checks rules that no schema can express, such as unique ids."""

from __future__ import annotations

from typing import Any

from tornado_proxy.config.findings import Findings
from tornado_proxy.config.secrets import Secrets, read_secrets
from tornado_proxy.domain.document import Document
from tornado_proxy.domain.document import Path as DocumentPath
from tornado_proxy.domain.identity import ApiKey, Member, ModelPatterns, Project


class ProjectReader:
    """Builds the projects of any number of documents, and adds faults to `findings`.

    `providers` are the names of the providers in proxy.yaml.
    """

    def __init__(self, findings: Findings, providers: frozenset[str]) -> None:
        self._findings = findings
        self._providers = providers
        #: Where each id was first used, as "file:line", by kind and id.
        self._first_uses: dict[tuple[str, str], str] = {}

    def read(self, document: Document) -> list[Project]:
        """Return the projects of a checked document, without those that have a fault."""
        content: Any = document.content
        sections = content.get("projects") if isinstance(content, dict) else None
        if not isinstance(sections, list):
            return []
        valid = [index for index in range(len(sections)) if not self._findings.has_fault(document, ("projects", index))]
        # The secrets of all projects: a missing secret is reported together with the other faults of its project.
        secrets = read_secrets(document, (), self._findings)
        for index in valid:
            self._check(document, sections[index], ("projects", index))
        valid = [index for index in valid if not self._findings.has_fault(document, ("projects", index))]
        return [_build_project(sections[index], ("projects", index), secrets) for index in valid]

    def _check(self, document: Document, section: Any, path: DocumentPath) -> None:
        self._check_unique("project", section["id"], document, (*path, "id"))
        for index, key in enumerate(section.get("api_keys", ())):
            self._check_unique("API key", key["id"], document, (*path, "api_keys", index, "id"))
        # A project's key is sent to the server's base_url of the provider, so proxy.yaml must have that provider.
        for name in sorted(set(section.get("providers", ())) - self._providers):
            rule = f"proxy.yaml has no providers.{name}; add it there, or remove this key"
            self._findings.add(document, (*path, "providers", name), rule)

    def _check_unique(self, kind: str, identifier: str, document: Document, path: DocumentPath) -> None:
        first = self._first_uses.get((kind, identifier))
        if first is not None:
            self._findings.add(document, path, f"is already the id of another {kind} ({first}); use a new UUID")
            return
        fault = document.fault(path, "")
        self._first_uses[kind, identifier] = f"{fault.file}:{fault.line}"


def _build_project(section: Any, path: DocumentPath, secrets: Secrets) -> Project:
    models = section.get("models")
    return Project(
        id=section["id"],
        name=section["name"],
        api_keys=tuple(
            ApiKey(key["id"], section["id"], secrets[(*path, "api_keys", index, "secret")])
            for index, key in enumerate(section.get("api_keys", ()))
        ),
        members=tuple(
            Member(member["user"], frozenset(member.get("permissions", ())), member.get("admin", False))
            for member in section.get("members", ())
        ),
        provider_keys={name: secrets[(*path, "providers", name, "api_key")] for name in section.get("providers", {})},
        models=ModelPatterns(None if models is None else tuple(models)),
        allowed_objects=frozenset(section.get("allowed_objects", ())),
    )
