"""Projects from their checked documents, with what no schema can say: ids are not used twice."""

from __future__ import annotations

from typing import Any

from tornado_proxy.config.findings import Findings
from tornado_proxy.config.secrets import Secrets, read_secrets
from tornado_proxy.domain.document import Document
from tornado_proxy.domain.document import Path as DocumentPath
from tornado_proxy.domain.identity import ApiKey, Member, ModelPatterns, Project


class ProjectReader:
    """Makes the projects of any number of documents; what is wrong goes to `findings`.

    `providers` are the names of the providers that the server's configuration has.
    """

    def __init__(self, findings: Findings, providers: frozenset[str]) -> None:
        self._findings = findings
        self._providers = providers
        self._places: dict[tuple[str, str], str] = {}

    def read(self, document: Document) -> list[Project]:
        """The projects of a document that has been checked; those with a fault are left out."""
        content: Any = document.content
        sections = content.get("projects") if isinstance(content, dict) else None
        if not isinstance(sections, list):
            return []
        sound = [index for index in range(len(sections)) if not self._findings.has_fault(document, ("projects", index))]
        # Of all projects, so that a missing secret is told together with the faults of its project.
        secrets = read_secrets(document, (), self._findings)
        for index in sound:
            self._check(document, sections[index], ("projects", index))
        sound = [index for index in sound if not self._findings.has_fault(document, ("projects", index))]
        return [_project(sections[index], ("projects", index), secrets) for index in sound]

    def _check(self, document: Document, section: Any, path: DocumentPath) -> None:
        self._once("project", section["id"], document, (*path, "id"))
        for number, key in enumerate(section.get("api_keys", ())):
            self._once("API key", key["id"], document, (*path, "api_keys", number, "id"))
        for name in sorted(set(section.get("providers", ())) - self._providers):
            rule = f"cannot be used: the server's configuration has no providers.{name}"
            self._findings.add(document, (*path, "providers", name), rule)

    def _once(self, kind: str, identifier: str, document: Document, path: DocumentPath) -> None:
        first = self._places.get((kind, identifier))
        if first is not None:
            self._findings.add(document, path, f"the id of another {kind}, see {first}")
            return
        fault = document.fault(path, "")
        self._places[kind, identifier] = f"{fault.file}:{fault.line}"


def _project(section: Any, path: DocumentPath, secrets: Secrets) -> Project:
    models = section.get("models")
    return Project(
        id=section["id"],
        name=section["name"],
        api_keys=tuple(
            ApiKey(key["id"], section["id"], secrets[(*path, "api_keys", number, "secret")])
            for number, key in enumerate(section.get("api_keys", ()))
        ),
        members=tuple(
            Member(member["user"], frozenset(member.get("permissions", ())), member.get("admin", False))
            for member in section.get("members", ())
        ),
        provider_keys={name: secrets[(*path, "providers", name, "api_key")] for name in section.get("providers", {})},
        models=ModelPatterns(None if models is None else tuple(models)),
        allowed_objects=frozenset(section.get("allowed_objects", ())),
    )
