"""Checks rules for providers, ports and headers that no schema can express."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_network

from tornado_proxy.config.findings import Findings
from tornado_proxy.config.secrets import read_secrets
from tornado_proxy.config.sections.listen_tls import check_tls
from tornado_proxy.config.sections.providers import (
    check_base_url,
    check_equal_secrets,
    check_provider,
    find_ca_file,
    read_keys,
)
from tornado_proxy.config.settings import ADMIN_PORT, CLIENT_PORT, DEFAULT_HOST, ProviderSettings
from tornado_proxy.domain.config.base_url import normalize_base_url
from tornado_proxy.domain.config.document import Document, read_section
from tornado_proxy.domain.config.document import Path as DocumentPath
from tornado_proxy.domain.identity import Secret
from tornado_proxy.wire.headers import HOP_BY_HOP, PRIVATE
from tornado_proxy.wire.host_header import parse_host

#: Addresses that listen on all interfaces, so that they collide with every other address.
_WILDCARD_ADDRESSES = frozenset({"0.0.0.0", "::"})  # noqa: S104  compared, not bound

#: An origin as browsers write it (RFC 6454 section 6.2); a wildcard would let every page use a token that it has read.
_ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:]+\])(?::\d{1,5})?")


def read_admin_token(document: Document, findings: Findings) -> Secret | None:
    """Return the token of the admin port that a checked document names, or None if it names none."""
    return read_secrets(document, ("admin",), findings).get(("admin", "token"))


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
        check_provider(document, section, path, findings)
        # `secrets` has no entry for a reference with a fault.
        if findings.has_fault(document, path):
            continue
        keys = read_keys(section, path, secrets)
        check_equal_secrets(document, keys, path, findings)
        providers[name] = ProviderSettings(
            base_url=normalize_base_url(section["base_url"]),
            keys=keys,
            ca_file=find_ca_file(document, section),
            region=section.get("region"),
            allow_private=section.get("allow_private", False),
        )
    return providers


def check_servers(document: Document, content: Mapping[str, object], findings: Findings) -> None:
    """Add faults of the ports and the admin port's hosts, the public URL, trusted proxies, origins and headers."""
    if not findings.has_fault(document, ("listen",)) and not findings.has_fault(document, ("admin",)):
        _check_ports(document, content, findings)
    _check_public(document, content, findings)
    check_tls(document, content, findings)
    for index, host in _list_texts(document, read_section(content, "admin"), ("admin", "hosts"), findings):
        if parse_host(f"[{host}]" if ":" in host else host) is None:
            rule = f"{host!r} is not a name or an address; write it without scheme, port and path"
            findings.add(document, ("admin", "hosts", index), rule)
    names = content.get("forward_headers")
    for index, name in enumerate(names if isinstance(names, list) else ()):
        if isinstance(name, str) and name.lower() in HOP_BY_HOP | PRIVATE:
            findings.add(document, ("forward_headers", index), f"{name} is never forwarded to a provider; remove it")


def _check_public(document: Document, content: Mapping[str, object], findings: Findings) -> None:
    listen, cors = read_section(content, "listen"), read_section(content, "cors")
    check_base_url(document, listen.get("public_url"), ("listen", "public_url"), findings)
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


def _check_ports(document: Document, content: Mapping[str, object], findings: Findings) -> None:
    host, port = _read_address(read_section(content, "listen"), CLIENT_PORT)
    admin_host, admin_port = _read_address(read_section(content, "admin"), ADMIN_PORT)
    same_host = host == admin_host or bool(_WILDCARD_ADDRESSES & {host, admin_host})
    # Port 0 is any free port, so two of them never collide.
    if port and port == admin_port and same_host:
        findings.add(document, ("admin",), f"admin.port must differ from listen.port, which is {port} too")


def _read_address(section: Mapping[str, object], default_port: int) -> tuple[object, object]:
    return section.get("host", DEFAULT_HOST), section.get("port", default_port)
