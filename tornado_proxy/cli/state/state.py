"""`tornado-proxy state rotate`: encrypts the provider keys in the ledger's database with the first key of the ring."""

from __future__ import annotations

from pathlib import Path

import click

from tornado_proxy.cli.options.config_lookup import exit_on_errors
from tornado_proxy.cli.options.config_option import config_option
from tornado_proxy.cli.state.actor import find_actor
from tornado_proxy.cli.state.state_store import open_state_store
from tornado_proxy.config.files import read_document
from tornado_proxy.config.findings import Findings
from tornado_proxy.config.sections.state import read_key_ring
from tornado_proxy.config.validation import check
from tornado_proxy.domain.errors import ConfigError
from tornado_proxy.domain.key_ring import KeyRing
from tornado_proxy.state import provider_settings


@click.group("state", short_help="Manage the encryption of provider keys that were set over REST.")
def state() -> None:
    """Manage the encryption of the provider keys that were set over REST (docs/provider_settings.md).

    \b
    Example:
      tornado-proxy state rotate
    """


@state.command("rotate")
@config_option("The configuration that names the ledger and the key ring.")
def rotate(config: Path) -> None:
    """Encrypt all provider keys again with the first key of state.keys.

    Servers may run meanwhile, if their ring has both keys. Afterwards the other keys can be removed from the ring.
    Exits with 1 if a provider key cannot be decrypted with any key of the ring.

    \b
    Example:
      LLM_PROXY_STATE_KEYS="k2:$(openssl rand -base64 32),$LLM_PROXY_STATE_KEYS" tornado-proxy state rotate
    """
    with exit_on_errors():
        ring = _read_ring(config)
    with open_state_store(config) as store:
        rotation = provider_settings.rotate(store, find_actor(), ring)
    click.echo(f"encrypted again with {ring.keys[0].name}: {rotation.rotated}", err=True)
    for project_id, provider in rotation.failed:
        click.echo(f"cannot be decrypted: the {provider} key of project {project_id}; set it again", err=True)
    if rotation.failed:
        raise SystemExit(1)


def _read_ring(config: Path) -> KeyRing:
    """Return the key ring of a configuration; faults of its other sections do not matter.

    Raises:
        ConfigError: the ring has a fault, or there is none.
    """
    document = read_document(config)
    findings = Findings([fault for fault in check(document, "proxy") if fault.key.startswith("state")])
    ring = read_key_ring(document, findings)
    if ring is None and not findings.faults:
        findings.add(document, ("state", "keys"), "is required; name the variable or file of the key ring")
    if ring is None:
        raise ConfigError(findings.faults)
    return ring
