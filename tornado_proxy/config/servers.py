"""What no schema can say of the providers, ports and headers of a proxy.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from tornado_proxy.config.files import why_unreadable
from tornado_proxy.config.findings import Findings
from tornado_proxy.config.secrets import read_secrets
from tornado_proxy.config.settings import ADMIN_PORT, CLIENT_PORT, DEFAULT_HOST, ProviderSettings
from tornado_proxy.domain.document import Document
from tornado_proxy.domain.document import Path as DocumentPath
from tornado_proxy.wire.headers import HOP_BY_HOP, PRIVATE

#: Addresses that take in every other one.
_EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104  compared with, not listened on


def read_providers(
    document: Document, content: Mapping[str, object], findings: Findings
) -> Mapping[str, ProviderSettings]:
    """The providers of a checked document, with their keys; those with a fault are left out."""
    secrets = read_secrets(document, ("providers",), findings)
    providers = {}
    named = content.get("providers")
    for name, section in named.items() if isinstance(named, dict) else ():
        path = ("providers", name)
        if not isinstance(section, dict):
            continue
        _check_base_url(document, section.get("base_url"), (*path, "base_url"), findings)
        ca_file = _ca_file(document, section.get("ca_file"), (*path, "ca_file"), findings)
        if findings.has_fault(document, path):
            continue
        providers[name] = ProviderSettings(
            base_url=section["base_url"].rstrip("/").removesuffix("/v1").rstrip("/"),
            api_key=secrets[(*path, "api_key")],
            ca_file=ca_file,
            region=section.get("region"),
        )
    return providers


def check_servers(document: Document, content: Mapping[str, object], findings: Findings) -> None:
    """Find an admin port that is the client port, and headers that never go on to a provider."""
    if not findings.has_fault(document, ("listen",)) and not findings.has_fault(document, ("admin",)):
        _check_ports(document, content, findings)
    names = content.get("forward_headers")
    for index, name in enumerate(names if isinstance(names, list) else ()):
        if isinstance(name, str) and name.lower() in HOP_BY_HOP | PRIVATE:
            findings.add(document, ("forward_headers", index), f"{name} never goes on to a provider")


def _check_base_url(document: Document, url: object, path: DocumentPath, findings: Findings) -> None:
    if not isinstance(url, str) or findings.has_fault(document, path):
        return
    # The URL is not repeated: a password could stand in it.
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        findings.add(document, path, "must be an http or https URL such as https://api.openai.com")
    elif "?" in url or "#" in url or "@" in parts.netloc:
        findings.add(document, path, "must hold no query, fragment or credentials")


def _ca_file(document: Document, name: object, path: DocumentPath, findings: Findings) -> str | None:
    if not isinstance(name, str) or findings.has_fault(document, path):
        return None
    file = Path(document.file).parent / name
    problem = why_unreadable(file)
    if problem is not None:
        findings.add(document, path, f"{file} {problem}")
    return str(file)


def _check_ports(document: Document, content: Mapping[str, object], findings: Findings) -> None:
    host, port = _address(content.get("listen"), CLIENT_PORT)
    admin_host, admin_port = _address(content.get("admin"), ADMIN_PORT)
    same_host = host == admin_host or bool(_EVERY_ADDRESS & {host, admin_host})
    if port and port == admin_port and same_host:
        findings.add(document, ("admin",), f"port {admin_port} is the port of clients; the admin port must be another")


def _address(section: object, default_port: int) -> tuple[object, object]:
    section = section if isinstance(section, dict) else {}
    return section.get("host", DEFAULT_HOST), section.get("port", default_port)
