"""Checks rules for providers, ports and headers that no schema can express."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

from tornado_proxy.config.files import find_read_error, resolve_folder
from tornado_proxy.config.findings import Findings
from tornado_proxy.config.secrets import read_secrets
from tornado_proxy.config.settings import ADMIN_PORT, CLIENT_PORT, DEFAULT_HOST, ProviderSettings
from tornado_proxy.domain.document import Document, read_section
from tornado_proxy.domain.document import Path as DocumentPath
from tornado_proxy.providers.registry import PROVIDERS
from tornado_proxy.wire.headers import HOP_BY_HOP, PRIVATE

#: Addresses that listen on all interfaces, so that they collide with every other address.
_WILDCARD_ADDRESSES = frozenset({"0.0.0.0", "::"})  # noqa: S104  compared, not bound

#: Paths that follow a base URL, longest first.  Copied with it, each request would name its path twice.
_ENDPOINTS = sorted(
    {endpoint.path for provider in PROVIDERS for endpoint in provider.endpoints if "{" not in endpoint.path},
    key=len,
    reverse=True,
)

#: An origin as browsers write it (RFC 6454 section 6.2); a wildcard would let every page use a token that it has read.
_ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:]+\])(?::\d{1,5})?")


def read_providers(
    document: Document, content: Mapping[str, object], findings: Findings
) -> Mapping[str, ProviderSettings]:
    """Return the providers of a checked document with their keys, without those that have a fault."""
    secrets = read_secrets(document, ("providers",), findings)
    providers = {}
    for name, section in read_section(content, "providers").items():
        path = ("providers", name)
        if not isinstance(section, dict):
            continue
        _check_base_url(document, section.get("base_url"), (*path, "base_url"), findings)
        ca_file = _check_ca_file(document, section.get("ca_file"), (*path, "ca_file"), findings)
        # `secrets` has no entry for a reference with a fault.
        if findings.has_fault(document, path):
            continue
        providers[name] = ProviderSettings(
            # OPENAI_BASE_URL and similar variables end with /v1; a provider's paths start with it.
            base_url=section["base_url"].rstrip("/").removesuffix("/v1").rstrip("/"),
            api_key=secrets[(*path, "api_key")],
            ca_file=ca_file,
            region=section.get("region"),
        )
    return providers


def check_servers(document: Document, content: Mapping[str, object], findings: Findings) -> None:
    """Add faults of the ports, the public URL, trusted proxies, origins and forwarded headers."""
    if not findings.has_fault(document, ("listen",)) and not findings.has_fault(document, ("admin",)):
        _check_ports(document, content, findings)
    _check_public(document, content, findings)
    names = content.get("forward_headers")
    for index, name in enumerate(names if isinstance(names, list) else ()):
        if isinstance(name, str) and name.lower() in HOP_BY_HOP | PRIVATE:
            findings.add(document, ("forward_headers", index), f"{name} is never forwarded to a provider; remove it")


def _check_public(document: Document, content: Mapping[str, object], findings: Findings) -> None:
    listen, cors = read_section(content, "listen"), read_section(content, "cors")
    _check_base_url(document, listen.get("public_url"), ("listen", "public_url"), findings)
    for index, network in _list_texts(document, listen, ("listen", "trusted_proxies"), findings):
        try:
            ip_network(network)
        except ValueError:
            rule = f"{network!r} is not a network such as 10.0.0.0/8, or an address; write it without host bits"
            findings.add(document, ("listen", "trusted_proxies", index), rule)
    for index, origin in _list_texts(document, cors, ("cors", "allow_origins"), findings):
        if not _ORIGIN.fullmatch(origin):
            rule = f"{origin!r} is not an origin such as https://app.example.com (lower case, no path, no *)"
            findings.add(document, ("cors", "allow_origins", index), rule)


def _list_texts(
    document: Document, section: Mapping[str, object], path: DocumentPath, findings: Findings
) -> list[tuple[int, str]]:
    """Return the texts of the list at `path` with their indexes, without those that have a fault."""
    values = section.get(str(path[-1]))
    if not isinstance(values, list) or findings.has_fault(document, path):
        return []
    return [(index, value) for index, value in enumerate(values) if isinstance(value, str)]


def _check_base_url(document: Document, url: object, path: DocumentPath, findings: Findings) -> None:
    if not isinstance(url, str) or findings.has_fault(document, path):
        return
    # The message does not repeat the URL, because it can hold a password.
    # urlsplit() raises ValueError for an invalid IPv6 address, and its `port` for a port that is not a number.
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        findings.add(document, path, "must be an http or https URL such as https://api.example.com")
    elif "?" in url or "#" in url or "@" in parts.netloc:
        findings.add(document, path, "must have no query, fragment or credentials")
    else:
        endpoint = next((known for known in _ENDPOINTS if parts.path.rstrip("/").endswith(known)), None)
        if endpoint is not None:
            findings.add(document, path, f"must end before the path of an endpoint; remove {endpoint}")


def _check_ca_file(document: Document, name: object, path: DocumentPath, findings: Findings) -> str | None:
    if not isinstance(name, str) or findings.has_fault(document, path):
        return None
    file = Path(document.file).parent / name
    problem = find_read_error(file)
    if problem is not None:
        findings.add(document, path, f"{resolve_folder(file)} {problem}")
    return str(file)


def _check_ports(document: Document, content: Mapping[str, object], findings: Findings) -> None:
    host, port = _read_address(read_section(content, "listen"), CLIENT_PORT)
    admin_host, admin_port = _read_address(read_section(content, "admin"), ADMIN_PORT)
    same_host = host == admin_host or bool(_WILDCARD_ADDRESSES & {host, admin_host})
    # Port 0 is any free port, so two of them never collide.
    if port and port == admin_port and same_host:
        findings.add(document, ("admin",), f"admin.port must differ from listen.port, which is {port} too")


def _read_address(section: Mapping[str, object], default_port: int) -> tuple[object, object]:
    return section.get("host", DEFAULT_HOST), section.get("port", default_port)
