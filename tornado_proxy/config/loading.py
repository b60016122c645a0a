"""From the path of a proxy.yaml to everything it leads to, with every fault of every file at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tornado_proxy.config.bundled import conf_path
from tornado_proxy.config.files import is_folder, read_document, read_documents, why_unreadable
from tornado_proxy.config.findings import Findings
from tornado_proxy.config.ledger import read_ledger_password
from tornado_proxy.config.projects import ProjectReader
from tornado_proxy.config.servers import check_servers, read_providers
from tornado_proxy.config.settings import Settings, make_settings
from tornado_proxy.config.validation import check
from tornado_proxy.domain.document import Document
from tornado_proxy.domain.document import Path as DocumentPath
from tornado_proxy.domain.errors import ConfigError, Fault
from tornado_proxy.domain.identity import Project


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A valid configuration."""

    settings: Settings
    projects: tuple[Project, ...]
    price_documents: tuple[Document, ...]


@dataclass(frozen=True, slots=True)
class ReadConfig:
    """A configuration that has been read, valid or not.  `config` is None where there are `faults`.

    `price_documents` are there when all of them are valid, whatever is wrong elsewhere: the price book can add to the
    faults what their schema cannot express.
    """

    config: LoadedConfig | None
    price_documents: tuple[Document, ...]
    faults: tuple[Fault, ...]
    warnings: tuple[Fault, ...]


def load_settings(path: Path) -> LoadedConfig:
    """Read and check the configuration at `path`.

    Raises:
        ConfigError: with every fault of the file itself, its projects, its prices and its secrets.
    """
    read = read_config(path)
    if read.config is None:
        raise ConfigError(list(read.faults))
    return read.config


def read_config(path: Path) -> ReadConfig:
    """Read and check the configuration at `path`, keeping what can be used of a faulty one."""
    try:
        document = read_document(path)
    except ConfigError as error:
        return ReadConfig(None, (), error.faults, ())
    findings = Findings(check(document, "proxy"))
    content = document.content if isinstance(document.content, dict) else {}
    providers = read_providers(document, content, findings)
    check_servers(document, content, findings)
    ledger_password = read_ledger_password(document, findings)
    projects = _projects(document, content, findings)
    prices = _prices(document, content, findings)
    warnings = tuple(sorted(findings.warnings))
    if findings.faults:
        return ReadConfig(None, prices, tuple(sorted(findings.faults)), warnings)
    settings = make_settings(content, path.parent, providers, ledger_password)
    return ReadConfig(LoadedConfig(settings, projects, prices), prices, (), warnings)


def _projects(document: Document, content: Mapping[str, object], findings: Findings) -> tuple[Project, ...]:
    named = content.get("projects")
    if isinstance(named, list):
        lines = {path: line for path, line in document.lines.items() if path[:1] == ("projects",)}
        documents = [Document(document.file, {"projects": named}, lines)]
    else:
        documents = _linked(document, ("projects",), named, findings)
    servers = content.get("providers")
    reader = ProjectReader(findings, frozenset(servers if isinstance(servers, dict) else ()))
    projects: list[Project] = []
    for one in documents:
        findings.faults.extend(check(one, "projects"))
        projects.extend(reader.read(one))
    return tuple(projects)


def _prices(document: Document, content: Mapping[str, object], findings: Findings) -> tuple[Document, ...]:
    pricing = content.get("pricing")
    named = pricing.get("path") if isinstance(pricing, dict) else None
    documents = (
        read_documents(conf_path("prices"))
        if named is None
        else _linked(document, ("pricing", "path"), named, findings)
    )
    faults = [fault for one in documents for fault in check(one, "prices")]
    findings.faults.extend(faults)
    return () if faults else tuple(documents)


def _linked(document: Document, at: DocumentPath, named: object, findings: Findings) -> list[Document]:
    """The documents of the file or folder that `document` names at `at`; none where they cannot be read."""
    if not isinstance(named, str) or findings.has_fault(document, at):
        return []
    path = Path(document.file).parent / named
    problem = None if is_folder(path) else why_unreadable(path)
    if problem is not None:
        findings.add(document, at, f"{path} {problem}")
        return []
    try:
        return read_documents(path)
    except ConfigError as error:
        findings.faults.extend(error.faults)
        return []
