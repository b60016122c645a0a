"""Reads the section `alerts`: the webhooks, with their secrets, and when many unknown costs are an alert."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tornado_proxy.config.findings import Findings
from tornado_proxy.config.secrets import Secrets, read_secrets
from tornado_proxy.domain.alert import CHOSEN_TYPES, AlertType
from tornado_proxy.domain.config.document import Document, read_section
from tornado_proxy.domain.config.document import Path as DocumentPath
from tornado_proxy.domain.identity import Secret
from tornado_proxy.webhooks.signature import check_secret

DEFAULT_UNSETTLED_PER_HOUR = 10


@dataclass(frozen=True, slots=True)
class Webhook:
    """A program that is told about alerts.

    Attributes:
        url: Where messages are sent.  It can hold a credential of the receiver, so nothing shows it.
        types: The types of alerts that it gets.
    """

    name: str
    url: Secret
    secret: Secret
    types: frozenset[AlertType] = frozenset(CHOSEN_TYPES)


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """The settings of alerts.  `unsettled_per_hour` requests with an unknown cost in an hour are an alert."""

    webhooks: tuple[Webhook, ...] = ()
    unsettled_per_hour: int = DEFAULT_UNSETTLED_PER_HOUR

    def list_receivers(self, kind: AlertType) -> tuple[Webhook, ...]:
        """Return the webhooks that get alerts of a type."""
        return tuple(webhook for webhook in self.webhooks if kind in webhook.types)


def read_alerts(document: Document, content: Mapping[str, object], findings: Findings) -> AlertSettings:
    """Return the settings of alerts; the default ones if they have a fault."""
    section: Any = read_section(content, "alerts")
    listed = section.get("webhooks", [])
    secrets = read_secrets(document, ("alerts",), findings)
    if findings.has_fault(document, ("alerts",)):
        return AlertSettings()
    names: set[str] = set()
    for index, webhook in enumerate(listed):
        path = ("alerts", "webhooks", index)
        if webhook["name"] in names:
            findings.add(document, (*path, "name"), "is already the name of another webhook; choose another one")
        names.add(webhook["name"])
        _check_url(document, webhook["url"], (*path, "url"), findings)
        if fault := check_secret(secrets[(*path, "secret")]):
            findings.add(document, (*path, "secret"), fault)
    webhooks = tuple(_build(webhook, index, secrets) for index, webhook in enumerate(listed))
    return AlertSettings(webhooks, section.get("unsettled_per_hour", DEFAULT_UNSETTLED_PER_HOUR))


def _check_url(document: Document, url: str, path: DocumentPath, findings: Findings) -> None:
    rule = "is not an http or https URL with a host and without user and password; copy it as the receiver shows it"
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    # The URL itself is not repeated: some receivers put a credential into it.
    if not is_valid or "@" in parts.netloc or not url.isascii() or not url.isprintable() or " " in url:
        findings.add(document, path, rule)


def _build(section: Mapping[str, Any], index: int, secrets: Secrets) -> Webhook:
    types = section.get("types")
    return Webhook(
        section["name"],
        Secret(section["url"]),
        secrets["alerts", "webhooks", index, "secret"],
        frozenset(CHOSEN_TYPES) if types is None else frozenset(AlertType(kind) for kind in types),
    )
