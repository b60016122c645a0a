"""Loads a proxy.yaml and every file that it names, and reports all faults of all files at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from tornado_proxy.config.bundled import conf_path
from tornado_proxy.config.files import find_read_error, is_folder, read_document, read_documents, resolve_folder
from tornado_proxy.config.findings import Findings
from tornado_proxy.config.price_files import read_price_files
from tornado_proxy.config.projects import ProjectReader
from tornado_proxy.config.sections.alerts import read_alerts
from tornado_proxy.config.sections.budgets import read_budget_settings
from tornado_proxy.config.sections.ledger import read_ledger_password
from tornado_proxy.config.sections.oauth import read_issuers
from tornado_proxy.config.sections.servers import check_servers, read_admin_token, read_providers
from tornado_proxy.config.sections.state import read_key_ring
from tornado_proxy.config.settings import Settings, StateSettings, make_settings
from tornado_proxy.config.validation import check
from tornado_proxy.domain.config.document import Document, read_section
from tornado_proxy.domain.config.document import Path as DocumentPath
from tornado_proxy.domain.config.fault import Fault
from tornado_proxy.domain.errors import ConfigError
from tornado_proxy.domain.identity import Project

_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A valid configuration: its settings, its projects and its price files."""

    settings: Settings
    projects: tuple[Project, ...]
    price_documents: tuple[Document, ...]


@dataclass(frozen=True, slots=True)
class ReadConfig:
    """A configuration that was read, valid or not.

    Attributes:
        config: The configuration, or None if there are faults.
        price_documents: All price files if all of them are valid, even if there are faults elsewhere: the price book
            finds faults that a schema cannot express, and `tornado-proxy check` reports them together.
        faults: Every fault, in file order.
        warnings: Findings that do not make the configuration unusable.
    """

    config: LoadedConfig | None
    price_documents: tuple[Document, ...]
    faults: tuple[Fault, ...]
    warnings: tuple[Fault, ...]


def load_settings(path: Path) -> LoadedConfig:
    """Read and check the configuration at `path`.

    Raises:
        ConfigError: The configuration has faults; the error holds those of the file, its projects, its prices and its
            secrets.
    """
    read = read_config(path)
    if read.config is None:
        raise ConfigError(list(read.faults))
    return read.config


def read_config(path: Path) -> ReadConfig:
    """Read and check the configuration at `path`, and return it with its faults and warnings."""
    try:
        document = read_document(path)
    except ConfigError as error:
        return ReadConfig(None, (), error.faults, ())
    # The schema first: the readers below skip every value that has a fault, and so report each fault once.
    findings = Findings(check(document, "proxy"))
    content = document.content if isinstance(document.content, dict) else {}
    providers = read_providers(document, content, findings)
    check_servers(document, content, findings)
    ledger_password = read_ledger_password(document, findings)
    issuers = read_issuers(document, content, findings)
    admin_token = read_admin_token(document, findings)
    budgets = read_budget_settings(document, content, findings)
    key_ring = read_key_ring(document, findings)
    alerts = read_alerts(document, content, findings)
    projects = _projects(document, content, findings)
    prices = _prices(document, content, findings)
    warnings = tuple(sorted(findings.warnings))
    if findings.faults:
        return ReadConfig(None, prices, tuple(sorted(findings.faults)), warnings)
    settings = make_settings(content, path.parent, providers, ledger_password, admin_token)
    settings = replace(settings, oauth=issuers, budgets=budgets, state=StateSettings(key_ring), alerts=alerts)
    return ReadConfig(LoadedConfig(settings, projects, prices), prices, (), warnings)


def read_project_documents(path: Path) -> list[Document]:
    """Return the checked documents with the projects of the configuration at `path`, without resolving secrets.

    Raises:
        ConfigError: A file cannot be read, or is not valid; the error holds every fault of the projects.
    """
    document = read_document(path)
    findings = Findings([fault for fault in check(document, "proxy") if fault.key.startswith("projects")])
    documents = _list_project_documents(document, findings)
    findings.faults.extend(fault for found in documents for fault in check(found, "projects"))
    if findings.faults:
        raise ConfigError(sorted(findings.faults))
    return documents


def _projects(document: Document, content: Mapping[str, object], findings: Findings) -> tuple[Project, ...]:
    reader = ProjectReader(findings, frozenset(read_section(content, "providers")), _list_issuers(content))
    projects: list[Project] = []
    for project_document in _list_project_documents(document, findings):
        findings.faults.extend(check(project_document, "projects"))
        projects.extend(reader.read(project_document))
    return tuple(projects)


def _list_issuers(content: Mapping[str, object]) -> frozenset[str]:
    """Return the issuers that the section `oauth` names, also those that have a fault."""
    sections = content.get("oauth")
    names = (
        [section.get("issuer") for section in sections if isinstance(section, dict)]
        if isinstance(sections, list)
        else []
    )
    return frozenset(name for name in names if isinstance(name, str))


def _list_project_documents(document: Document, findings: Findings) -> list[Document]:
    """Return the documents with the projects: files, or the list in proxy.yaml itself."""
    listed = document.content.get("projects") if isinstance(document.content, dict) else None
    if not isinstance(listed, list):
        return _read_linked(document, ("projects",), listed, findings, read_documents)
    # Projects in proxy.yaml itself are checked like a project file, with the lines of proxy.yaml.
    lines = {path: line for path, line in document.lines.items() if path[:1] == ("projects",)}
    return [Document(document.file, {"projects": listed}, lines)]


def _prices(document: Document, content: Mapping[str, object], findings: Findings) -> tuple[Document, ...]:
    path = read_section(content, "pricing").get("path")
    files = (
        read_price_files(conf_path("prices"))
        if path is None
        else _read_linked(document, ("pricing", "path"), path, findings, read_price_files)
    )
    faults = [fault for file in files for fault in file.faults]
    findings.faults.extend(faults)
    return () if faults else tuple(file.document for file in files)


def _read_linked(
    document: Document, at: DocumentPath, link: object, findings: Findings, read: Callable[[Path], list[_Read]]
) -> list[_Read]:
    """Read the file or folder `link`, which is the value at `at`; return an empty list if it cannot be read."""
    if not isinstance(link, str) or findings.has_fault(document, at):
        return []
    path = Path(document.file).parent / link
    # The fault has the line of the link: that is the line to correct if the path is wrong.
    problem = None if is_folder(path) else find_read_error(path)
    if problem is not None:
        findings.add(document, at, f"{resolve_folder(path)} {problem}")
        return []
    try:
        return read(path)
    except ConfigError as error:
        findings.faults.extend(error.faults)
        return []
