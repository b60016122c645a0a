"""Builds projects from checked documents, and checks rules that no schema can express, such as unique ids."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from tornado_proxy.config.findings import Findings
from tornado_proxy.config.secrets import Secrets, read_secrets
from tornado_proxy.config.sections.budgets import build_budgets, build_limits, check_budgets
from tornado_proxy.config.sections.providers import (
    check_equal_secrets,
    check_provider,
    find_ca_file,
    read_keys,
)
from tornado_proxy.domain.attribution import DEFAULT_END_USER_HEADER, AttributionRules, EndUserSource, StatedField
from tornado_proxy.domain.config.base_url import normalize_base_url
from tornado_proxy.domain.config.document import Document
from tornado_proxy.domain.config.document import Path as DocumentPath
from tornado_proxy.domain.identity import ApiKey, Member, ModelPatterns, Project, ProjectProvider

#: Other names of permissions.
_ALIASES = {"llm_proxy_user": "can_use_llm_proxy"}


class ProjectReader:
    """Builds the projects of any number of documents, and adds faults to `findings`.

    `providers` are the names of the providers in proxy.yaml, `issuers` those of its OAuth issuers.
    """

    def __init__(self, findings: Findings, providers: frozenset[str], issuers: frozenset[str] = frozenset()) -> None:
        self._findings = findings
        self._providers = providers
        self._issuers = issuers
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
        projects = [_build_project(document, sections[index], ("projects", index), secrets) for index in valid]
        for index, project in zip(valid, projects, strict=True):
            for name, provider in project.providers.items():
                path = ("projects", index, "providers", name)
                check_equal_secrets(document, provider.keys, path, self._findings)
        return projects

    def _check(self, document: Document, section: Any, path: DocumentPath) -> None:
        self._check_unique("project", section["id"], document, (*path, "id"))
        for index, key in enumerate(section.get("api_keys", ())):
            self._check_unique("API key", key["id"], document, (*path, "api_keys", index, "id"))
        for index, member in enumerate(section.get("members", ())):
            self._check_member(document, member, (*path, "members", index))
        check_budgets(document, section.get("budgets"), (*path, "budgets"), self._findings)
        for name, provider in section.get("providers", {}).items():
            self._check_provider(document, name, provider, path)

    def _check_member(self, document: Document, section: Any, path: DocumentPath) -> None:
        if "user" in section and "group" in section:
            self._findings.add(document, path, "has a user and a group; write two entries")
        issuer = section.get("issuer")
        if issuer is not None and issuer not in self._issuers:
            rule = "is not an issuer of oauth in proxy.yaml; add it there, or write it exactly as there"
            self._findings.add(document, (*path, "issuer"), rule)
        if issuer is None and len(self._issuers) > 1:
            # Otherwise one issuer could name a user or a group of the other.
            rule = "is required, because oauth in proxy.yaml has several issuers"
            self._findings.add(document, (*path, "issuer"), rule)

    def _check_provider(self, document: Document, name: str, section: Any, path: DocumentPath) -> None:
        path = (*path, "providers", name)
        check_provider(document, section, path, self._findings)
        # Without a base_url of its own, a project's key is sent to the server's, so proxy.yaml must have that provider.
        if name not in self._providers:
            rule = f"proxy.yaml has no providers.{name}; add it there, or remove this key"
            self._findings.add(document, path, rule)
        for member in ("region", "ca_file"):
            if member in section and "base_url" not in section:
                rule = "applies to a base_url of the project; add one, or set it in proxy.yaml"
                self._findings.add(document, (*path, member), rule)

    def _check_unique(self, kind: str, identifier: str, document: Document, path: DocumentPath) -> None:
        first = self._first_uses.get((kind, identifier))
        if first is not None:
            self._findings.add(document, path, f"is already the id of another {kind} ({first}); use a new UUID")
            return
        fault = document.fault(path, "")
        self._first_uses[kind, identifier] = f"{fault.file}:{fault.line}"


def _build_project(document: Document, section: Any, path: DocumentPath, secrets: Secrets) -> Project:
    models, surcharge_rate = section.get("models"), section.get("surcharge_rate")
    return Project(
        id=section["id"],
        name=section["name"],
        api_keys=tuple(
            ApiKey(key["id"], section["id"], secrets[(*path, "api_keys", index, "secret")], key.get("disabled", False))
            for index, key in enumerate(section.get("api_keys", ()))
        ),
        members=tuple(_build_member(member) for member in section.get("members", ())),
        providers={
            name: _build_provider(document, provider, (*path, "providers", name), secrets)
            for name, provider in section.get("providers", {}).items()
        },
        models=ModelPatterns(None if models is None else tuple(models)),
        surcharge_rate=None if surcharge_rate is None else Decimal(surcharge_rate),
        on_client_disconnect=section.get("on_client_disconnect"),
        labels=section.get("labels", {}),
        allowed_objects=frozenset(section.get("allowed_objects", ())),
        attribution=_build_attribution(section.get("attribution", {})),
        budgets=build_budgets(section["budgets"]) if "budgets" in section else None,
        limits=build_limits(section["limits"]) if "limits" in section else None,
    )


def _build_attribution(section: Any) -> AttributionRules:
    return AttributionRules(
        repository=section.get("repository", False),
        # Names of headers have no case, those of baggage members have.
        annotations={name.lower(): StatedField(field) for name, field in section.get("annotations", {}).items()},
        baggage={name: StatedField(field) for name, field in section.get("baggage", {}).items()},
        end_user=tuple(map(EndUserSource, section.get("end_user", ()))),
        end_user_header=section.get("end_user_header", DEFAULT_END_USER_HEADER).lower(),
        required={name.lower(): frozenset(values) for name, values in section.get("required_annotations", {}).items()},
    )


def _build_member(section: Any) -> Member:
    return Member(
        user=section.get("user"),
        group=section.get("group"),
        issuer=section.get("issuer"),
        permissions=frozenset(_ALIASES.get(name, name) for name in section.get("permissions", ())),
        admin=section.get("admin", False),
    )


def _build_provider(document: Document, section: Any, path: DocumentPath, secrets: Secrets) -> ProjectProvider:
    base_url = section.get("base_url")
    return ProjectProvider(
        keys=read_keys(section, path, secrets),
        base_url=None if base_url is None else normalize_base_url(base_url),
        region=section.get("region"),
        ca_file=find_ca_file(document, section),
    )
