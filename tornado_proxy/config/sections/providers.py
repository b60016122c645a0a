"""Reads the members that providers of proxy.yaml and of a project have in common: address, certificates, keys."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from tornado_proxy.config.files import find_read_error, resolve_folder
from tornado_proxy.config.findings import Findings
from tornado_proxy.config.secrets import Secrets
from tornado_proxy.domain.config.base_url import find_base_url_fault
from tornado_proxy.domain.config.document import Document
from tornado_proxy.domain.config.document import Path as DocumentPath
from tornado_proxy.domain.cost import NO_DISCOUNT, Discount
from tornado_proxy.domain.identity import ProviderKey
from tornado_proxy.providers.registry import PROVIDERS

#: The name of the key that `api_key`, the short form of `keys`, states.
DEFAULT_KEY_NAME = "default"

#: Paths that follow a base URL, longest first.  Copied with it, each request would name its path twice.
ENDPOINT_PATHS = sorted(
    {endpoint.path for provider in PROVIDERS for endpoint in provider.endpoints if "{" not in endpoint.path},
    key=len,
    reverse=True,
)


def check_provider(document: Document, section: Mapping[str, Any], path: DocumentPath, findings: Findings) -> None:
    """Add faults of the provider at `path` that no schema can express."""
    check_base_url(document, section.get("base_url"), (*path, "base_url"), findings)
    _check_ca_file(document, section.get("ca_file"), (*path, "ca_file"), findings)
    if "api_key" in section and "keys" in section:
        findings.add(document, (*path, "keys"), "excludes api_key, its short form; remove one of them")
    names: set[str] = set()
    for index, key in enumerate(_list_keys(section)):
        if isinstance(key, dict) and isinstance(name := key.get("name"), str):
            if name in names:
                findings.add(document, (*path, "keys", index, "name"), f"{name} is the name of another key; change one")
            names.add(name)
        if isinstance(key, dict) and isinstance(key.get("discount"), dict):
            _check_discount(document, key["discount"], (*path, "keys", index, "discount"), findings)


def check_equal_secrets(
    document: Document, keys: tuple[ProviderKey, ...], path: DocumentPath, findings: Findings
) -> None:
    """Add a fault for a key of `keys` with the secret of another one: records could not tell them apart."""
    first_uses: dict[str, str] = {}
    for index, key in enumerate(keys):
        first = first_uses.setdefault(key.secret.reveal(), key.name)
        if first != key.name:
            findings.add(document, (*path, "keys", index, "secret"), f"is the secret of key {first} too; remove one")


def read_keys(section: Mapping[str, Any], path: DocumentPath, secrets: Secrets) -> tuple[ProviderKey, ...]:
    """Return the keys of a checked provider at `path`, without those whose secret has a fault."""
    if "api_key" in section:
        return _make_keys([({"name": DEFAULT_KEY_NAME}, (*path, "api_key"))], secrets)
    return _make_keys(
        [(key, (*path, "keys", index, "secret")) for index, key in enumerate(_list_keys(section))], secrets
    )


def find_ca_file(document: Document, section: Mapping[str, Any]) -> str | None:
    """Return the path of a provider's file of certificate authorities, None if it names none."""
    name = section.get("ca_file")
    return str(Path(document.file).parent / name) if isinstance(name, str) else None


def check_base_url(document: Document, url: object, path: DocumentPath, findings: Findings) -> None:
    """Add a fault if the URL at `path` is not one that paths of endpoints can be appended to."""
    if not isinstance(url, str) or findings.has_fault(document, path):
        return
    fault = find_base_url_fault(url, ENDPOINT_PATHS)
    if fault is not None:
        findings.add(document, path, fault)


def _check_ca_file(document: Document, name: object, path: DocumentPath, findings: Findings) -> None:
    if not isinstance(name, str) or findings.has_fault(document, path):
        return
    file = Path(document.file).parent / name
    problem = find_read_error(file)
    if problem is not None:
        findings.add(document, path, f"{resolve_folder(file)} {problem}")


def _list_keys(section: Mapping[str, Any]) -> list[Any]:
    keys = section.get("keys")
    return keys if isinstance(keys, list) else []


def _make_keys(listed: list[tuple[Mapping[str, Any], DocumentPath]], secrets: Secrets) -> tuple[ProviderKey, ...]:
    return tuple(
        ProviderKey(key["name"], secrets[path], key.get("provider_ids", {}), _read_discount(key.get("discount")))
        for key, path in listed
        if path in secrets
    )


def _check_discount(document: Document, section: Mapping[str, Any], path: DocumentPath, findings: Findings) -> None:
    """Add a fault for a day that the calendar does not have, and for a discount that ends before it begins."""
    for name in ("from", "until"):
        if not findings.has_fault(document, (*path, name)) and name in section and _read_day(section[name]) is None:
            findings.add(document, (*path, name), f"{section[name]!r} is not a day of the calendar")
    begins, ends = _read_day(section.get("from")), _read_day(section.get("until"))
    if begins is not None and ends is not None and begins >= ends:
        findings.add(
            document,
            (*path, "until"),
            f"{ends:%Y-%m-%d} is not after from {begins:%Y-%m-%d}; it is the day after the last",
        )


def _read_discount(section: Mapping[str, Any] | None) -> Discount:
    if section is None:
        return NO_DISCOUNT
    rate = Decimal(section["percent"]).scaleb(-2).normalize()
    return Discount(rate, _read_day(section.get("from")), _read_day(section.get("until")))


def _read_day(text: object) -> datetime | None:
    """Return the begin of a day in UTC; None for text that is no day."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC) if isinstance(text, str) else None
    except ValueError:
        return None
