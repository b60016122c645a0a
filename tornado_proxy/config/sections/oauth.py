"""Reads the section `oauth`, the issuers of access tokens, and checks rules that no schema can express."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tornado_proxy.config.files import find_read_error, resolve_folder
from tornado_proxy.config.findings import Findings
from tornado_proxy.config.secrets import Secrets, read_secrets
from tornado_proxy.domain.config.document import Document
from tornado_proxy.domain.config.document import Path as DocumentPath
from tornado_proxy.domain.config.loopback import is_secure_url
from tornado_proxy.domain.config.oauth import (
    ANY,
    DEFAULT_MAX_STALE_S,
    DEFAULT_SCOPE,
    IntrospectionEndpoint,
    KeySource,
    LoginClient,
    OAuthIssuer,
)


def read_issuers(document: Document, content: Mapping[str, object], findings: Findings) -> tuple[OAuthIssuer, ...]:
    """Return the issuers of a checked document with their secrets, without those that have a fault."""
    sections = content.get("oauth")
    if not isinstance(sections, list):
        return ()
    secrets = read_secrets(document, ("oauth",), findings)
    valid = [index for index in range(len(sections)) if not findings.has_fault(document, ("oauth", index))]
    _check_uniqueness(document, {index: sections[index] for index in valid}, findings)
    for index in valid:
        _check_issuer(document, sections[index], ("oauth", index), findings)
    return tuple(
        _build_issuer(Path(document.file).parent, sections[index], ("oauth", index), secrets)
        for index in valid
        if not findings.has_fault(document, ("oauth", index))
    )


def _check_uniqueness(document: Document, sections: Mapping[int, Any], findings: Findings) -> None:
    names: set[str] = set()
    introspecting: int | None = None
    for index, section in sections.items():
        if section["issuer"] in names:
            findings.add(document, ("oauth", index, "issuer"), "is already the issuer of another entry; remove one")
        names.add(section["issuer"])
        if "introspection" not in section:
            continue
        if introspecting is not None:
            rule = (
                f"oauth[{introspecting}] introspects already; an opaque token does not say whose it is, "
                "and must not be shown to the wrong issuer"
            )
            findings.add(document, ("oauth", index, "introspection"), rule)
        introspecting = index


def _check_issuer(document: Document, section: Any, path: DocumentPath, findings: Findings) -> None:
    for member in ("issuer", "jwks_uri"):
        _check_url(document, section.get(member), (*path, member), findings)
    _check_url(document, section.get("introspection", {}).get("url"), (*path, "introspection", "url"), findings)
    if {"?", "#"} & set(section["issuer"]):
        findings.add(document, (*path, "issuer"), "must have no query and no fragment (RFC 8414 section 2)")
    if section["audience"] in section["clients"]:
        rule = "is one of clients, so ID tokens of that client would have it; let the issuer use another audience"
        findings.add(document, (*path, "audience"), rule)
    if ANY in section["clients"] and len(section["clients"]) > 1:
        findings.add(document, (*path, "clients"), f"{ANY} accepts every client; remove the others, or {ANY}")
    login = section.get("login")
    if login is not None and not {login["client_id"], ANY} & set(section["clients"]):
        rule = "is not one of clients, so its access tokens would be refused; add it there"
        findings.add(document, (*path, "login", "client_id"), rule)
    _check_ca_file(document, section.get("ca_file"), (*path, "ca_file"), findings)


def _check_url(document: Document, url: object, path: DocumentPath, findings: Findings) -> None:
    # The message does not repeat the URL, because it can hold a password.
    if isinstance(url, str) and not _is_plain_secure_url(url):
        findings.add(document, path, "must be an https URL without credentials; http is for this machine only")


def _is_plain_secure_url(url: str) -> bool:
    return url.isascii() and url.isprintable() and " " not in url and is_secure_url(url) and not urlsplit(url).fragment


def _check_ca_file(document: Document, name: object, path: DocumentPath, findings: Findings) -> None:
    if not isinstance(name, str):
        return
    file = Path(document.file).parent / name
    problem = find_read_error(file)
    if problem is not None:
        findings.add(document, path, f"{resolve_folder(file)} {problem}")


def _build_issuer(folder: Path, section: Any, path: DocumentPath, secrets: Secrets) -> OAuthIssuer:
    ca_file = str(folder / section["ca_file"]) if "ca_file" in section else None
    introspection, login = section.get("introspection"), section.get("login")
    return OAuthIssuer(
        keys=KeySource(
            issuer=section["issuer"],
            jwks_uri=section.get("jwks_uri"),
            max_stale_s=float(section.get("jwks_max_stale_s", DEFAULT_MAX_STALE_S)),
            ca_file=ca_file,
        ),
        audience=section["audience"],
        clients=frozenset(section["clients"]),
        scope=section.get("scope", DEFAULT_SCOPE),
        introspection=None
        if introspection is None
        else IntrospectionEndpoint(
            introspection["url"],
            introspection["client_id"],
            secrets[(*path, "introspection", "client_secret")],
            ca_file,
        ),
        trust_email=section.get("trust_email", False),
        groups_claim=section.get("groups_claim", "groups"),
        login=None if login is None else _build_login(login, section.get("scope", DEFAULT_SCOPE)),
    )


def _build_login(section: Any, scope: str) -> LoginClient:
    default = ["openid", "offline_access", *([scope] if scope != ANY else [])]
    return LoginClient(section["client_id"], tuple(section.get("scopes", default)))
