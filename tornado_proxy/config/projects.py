"""Projects from their checked documents, with what no schema can say: ids are not used twice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tornado_proxy.config.secrets import SecretReader
from tornado_proxy.domain.document import Document
from tornado_proxy.domain.document import Path as DocumentPath
from tornado_proxy.domain.errors import Fault
from tornado_proxy.domain.identity import ApiKey, Member, ModelPatterns, Project


def make_projects(documents: Iterable[Document], faults: list[Fault]) -> tuple[Project, ...]:
    """The projects of all `documents`; faults are added to `faults`."""
    projects: list[Project] = []
    seen: set[tuple[str, str]] = set()
    for document in documents:
        secrets = SecretReader(document, faults)
        content: Any = document.content
        for index, section in enumerate(content["projects"]):
            path: DocumentPath = ("projects", index)
            _once(seen, ("project", section["id"]), document, (*path, "id"), faults)
            for number, key in enumerate(section.get("api_keys", ())):
                _once(seen, ("API key", key["id"]), document, (*path, "api_keys", number, "id"), faults)
            projects.append(_project(section, path, secrets))
    return tuple(projects)


def _project(section: Any, path: DocumentPath, secrets: SecretReader) -> Project:
    models = section.get("models")
    return Project(
        id=section["id"],
        name=section["name"],
        api_keys=tuple(
            ApiKey(key["id"], section["id"], secrets.read(key["secret"], (*path, "api_keys", number, "secret")))
            for number, key in enumerate(section.get("api_keys", ()))
        ),
        members=tuple(
            Member(member["user"], frozenset(member.get("permissions", ())), member.get("admin", False))
            for member in section.get("members", ())
        ),
        provider_keys={
            name: secrets.read(provider["api_key"], (*path, "providers", name, "api_key"))
            for name, provider in section.get("providers", {}).items()
        },
        models=ModelPatterns(None if models is None else tuple(models)),
    )


def _once(
    seen: set[tuple[str, str]], name: tuple[str, str], document: Document, path: DocumentPath, faults: list[Fault]
) -> None:
    if name in seen:
        faults.append(document.fault(path, f"{name[0]} id {name[1]} is used twice"))
    seen.add(name)
