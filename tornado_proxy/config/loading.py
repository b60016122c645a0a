"""From the path of a proxy.yaml to everything it leads to, with every fault of every file at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tornado_proxy.config.bundled import folder
from tornado_proxy.config.files import read_document, read_documents
from tornado_proxy.config.projects import make_projects
from tornado_proxy.config.secrets import SecretReader
from tornado_proxy.config.settings import ProviderSettings, Settings, make_settings
from tornado_proxy.config.validation import check
from tornado_proxy.domain.document import Document
from tornado_proxy.domain.errors import ConfigError, Fault
from tornado_proxy.domain.identity import Project


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A valid configuration."""

    settings: Settings
    projects: tuple[Project, ...]
    price_documents: tuple[Document, ...]


def load_settings(path: Path) -> LoadedConfig:
    """Read and check the configuration at `path`.

    Raises:
        ConfigError: with every fault of the file itself, its projects, its prices and its secrets.
    """
    document = read_document(path)
    faults = check(document, "proxy")
    content = document.content if isinstance(document.content, dict) else {}
    base = path.parent
    projects: tuple[Project, ...] = ()
    if not any(fault.key.startswith("projects") for fault in faults):
        projects = make_projects(_project_documents(document, content, base, faults), faults)
    prices = _price_documents(content, base, faults)
    providers = {} if faults and not _usable(content) else _providers(document, content, faults)
    if faults:
        raise ConfigError(faults)
    return LoadedConfig(make_settings(content, base, providers), projects, tuple(prices))


def _usable(content: Mapping[str, object]) -> bool:
    providers = content.get("providers")
    return isinstance(providers, dict) and all(
        isinstance(one, dict) and isinstance(one.get("api_key"), dict) and isinstance(one.get("base_url"), str)
        for one in providers.values()
    )


def _project_documents(
    document: Document, content: Mapping[str, object], base: Path, faults: list[Fault]
) -> list[Document]:
    named = content.get("projects")
    if isinstance(named, list):
        lines = {path: line for path, line in document.lines.items() if path[:1] == ("projects",)}
        documents = [Document(document.file, {"projects": named}, lines)]
    elif isinstance(named, str):
        try:
            documents = read_documents(base / named)
        except ConfigError as error:
            faults.extend(error.faults)
            return []
    else:
        return []
    found = [fault for one in documents for fault in check(one, "projects")]
    faults.extend(found)
    return [] if found else documents


def _price_documents(content: Mapping[str, object], base: Path, faults: list[Fault]) -> list[Document]:
    pricing = content.get("pricing")
    named = pricing.get("path") if isinstance(pricing, dict) else None
    path = base / named if isinstance(named, str) else folder("conf") / "prices"
    try:
        documents = read_documents(path)
    except ConfigError as error:
        faults.extend(error.faults)
        return []
    faults.extend(fault for one in documents for fault in check(one, "prices"))
    return documents


def _providers(document: Document, content: Mapping[str, object], faults: list[Fault]) -> dict[str, ProviderSettings]:
    secrets = SecretReader(document, faults)
    providers = {}
    named = content.get("providers")
    for name, section in named.items() if isinstance(named, dict) else ():
        path = ("providers", name)
        ca_file = section.get("ca_file")
        providers[name] = ProviderSettings(
            base_url=_base_url(document, section["base_url"], (*path, "base_url"), faults),
            api_key=secrets.read(section["api_key"], (*path, "api_key")),
            ca_file=str(Path(document.file).parent / ca_file) if ca_file else None,
            region=section.get("region"),
        )
    return providers


def _base_url(document: Document, url: str, path: tuple[str, ...], faults: list[Fault]) -> str:
    """What stands before `/v1/...`; a trailing `/v1`, as in OPENAI_BASE_URL, is dropped."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        faults.append(document.fault(path, f"{url!r} is not an http or https URL"))
    elif parts.query or parts.fragment or parts.username or parts.password:
        faults.append(document.fault(path, "must hold no query, fragment or credentials"))
    return url.rstrip("/").removesuffix("/v1").rstrip("/")
