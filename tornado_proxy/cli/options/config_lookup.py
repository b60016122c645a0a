"""Finds the ledger and the price files for reports: from options, or from the sections of a configuration.

Only those sections are read: users of reports may have no access to the configuration's secrets.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

import click

from tornado_proxy.config.bundled import conf_path
from tornado_proxy.config.files import read_document, read_documents
from tornado_proxy.config.findings import Findings
from tornado_proxy.config.price_files import list_valid_documents, read_price_files
from tornado_proxy.config.sections.ledger import ledger_address, read_ledger_password
from tornado_proxy.config.validation import check
from tornado_proxy.domain.config.document import Document, list_children, read_section
from tornado_proxy.domain.config.ledger_address import LedgerAddress
from tornado_proxy.domain.errors import ConfigError, LedgerUnavailable
from tornado_proxy.domain.project_lookup import match_projects, match_recorded_projects
from tornado_proxy.local.folders import LEDGER_FILE, find_state_folder
from tornado_proxy.pricing.book.price_book import PriceBook

_DEFAULT_CONFIG = Path("conf/proxy.yaml")

CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=_DEFAULT_CONFIG,
    help="The configuration that names the ledger and the price files.",
)
PRICES_CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="The configuration that names the price files; default: conf/proxy.yaml if it exists, else bundled prices.",
)
LEDGER = click.option("--ledger", "url", help="The URL of the ledger: sqlite:///PATH or postgresql://...")
PRICES = click.option("--prices", type=click.Path(path_type=Path), help="The price file, or the folder of price files.")


@contextlib.contextmanager
def exit_on_errors() -> Iterator[None]:
    """Print the errors that prevent a report to standard error, and exit with status 1."""
    try:
        yield
    except (ConfigError, LedgerUnavailable) as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    except BrokenPipeError:
        # The reader (such as `head`) has closed the pipe.  Python flushes standard output at exit and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def find_ledger(config: Path, url: str | None) -> LedgerAddress:
    """Return the ledger at `url`, or that of the configuration if `url` is None.

    Without both it is the ledger of `tornado-proxy local`.  libpq finds the password of a URL itself.

    Raises:
        ConfigError: with every fault of the configuration's section `ledger`.
        click.UsageError: `url` is no URL of a ledger.
    """
    if url is None and _is_missing_default(config):
        url = _find_local_ledger()
    if url is None:
        document = read_document(config)
        section = read_section(document.content, "ledger")
    else:
        section = {"url": url}
        # The schema of the configuration checks the option too; faults then name --ledger as their file.
        document = Document("--ledger", {"ledger": section}, {})
    # Faults of other sections, such as a secret that this user cannot read, do not concern a report.
    findings = Findings([fault for fault in check(document, "proxy") if fault.key.startswith("ledger")])
    password = read_ledger_password(document, findings)
    if findings.faults and url is not None:
        raise click.UsageError(findings.faults[0].rule)
    if findings.faults:
        raise ConfigError(findings.faults)
    return ledger_address(section, config.parent if url is None else Path(), password)


def _is_missing_default(config: Path) -> bool:
    return config == _DEFAULT_CONFIG and not config.exists()


def _find_local_ledger() -> str | None:
    """Return the URL of the ledger of this user's local proxies, None if there is none."""
    path = find_state_folder() / LEDGER_FILE
    return f"sqlite:///{path}" if path.exists() else None


def find_project_ids(config: Path) -> frozenset[str]:
    """Return the ids of the projects of a configuration, without reading their secrets.

    Raises:
        ConfigError: a file cannot be read.
    """
    return frozenset(_read_project_names(config))


def find_project_id(config: Path, wanted: str) -> str:
    """Return the id of the project of a configuration that has the name `wanted`, else `wanted` itself.

    Raises:
        ConfigError: a file cannot be read.
        click.ClickException: several projects have the name.
    """
    return _find_only(match_projects(_read_project_names(config), wanted), wanted) or wanted


def find_recorded_project_id(config: Path, url: str | None, wanted: str | None) -> str | None:
    """Return the id of a project whose records or stops are wanted; it may have been removed from the configuration.

    Without this check a name that nothing has would give a sum of 0, or an empty list.

    Args:
        config: The configuration that names the projects.
        url: The URL of a ledger that replaces the configuration; then `wanted` must be the id.
        wanted: The id or the name of the project; None for all projects.

    Raises:
        ConfigError: a file cannot be read.
        click.ClickException: it is neither a name in the configuration nor an id.
    """
    if wanted is None or url is not None or _is_missing_default(config):
        return wanted
    project_id = _find_only(match_recorded_projects(_read_project_names(config), wanted), wanted)
    if project_id is None:
        raise click.ClickException(
            f"no project has the id or name {wanted!r}; `tornado-proxy project list` shows all ids"
        )
    return project_id


def _find_only(ids: Sequence[str], wanted: str) -> str | None:
    """Return the only one of the ids that `wanted` names, None if it names none."""
    if len(ids) > 1:
        raise click.ClickException(f"several projects have the name {wanted!r}; use the id of one: {', '.join(ids)}")
    return ids[0] if ids else None


def _read_project_names(config: Path) -> dict[str, str]:
    """Return the names of the projects of a configuration by id."""
    content = dict(list_children(read_document(config).content))
    listed = content.get("projects")
    if isinstance(listed, str):
        documents = read_documents(config.parent / listed)
        sections = [section for document in documents for section in _list_projects(document.content)]
    else:
        sections = _list_projects(content)
    members = [dict(list_children(section)) for section in sections]
    return {str(member.get("id")): str(member.get("name")) for member in members}


def _list_projects(content: object) -> list[object]:
    return [section for _, section in list_children(dict(list_children(content)).get("projects"))]


def named_config(config: Path | None) -> Path | None:
    """Return the configuration that names the price files: the given one, else the default one if it exists."""
    return _DEFAULT_CONFIG if config is None and _DEFAULT_CONFIG.exists() else config


def find_prices(config: Path | None, prices: Path | None) -> Path:
    """Return the price file or folder: the given one, that of the configuration, or the bundled one."""
    if prices is not None:
        return prices
    path = _section(config, "pricing").get("path")
    return conf_path("prices") if path is None or config is None else config.parent / str(path)


def readable(config: Path, url: str | None) -> Path | None:
    """Return `config`, or None (bundled prices) if it does not exist and the ledger is found without it."""
    return None if not config.exists() and (url is not None or config == _DEFAULT_CONFIG) else config


def is_bundled(config: Path | None, prices: Path | None) -> bool:
    """Return True if the price files are those of the installed package."""
    path = find_prices(config, prices).resolve()
    # In a clone of the repository conf/prices is the operator's own and may be written.
    return path == conf_path("prices").resolve() and "bundled" in path.parts


def read_prices(path: Path) -> list[Document]:
    """Return the price documents at `path`, which are valid against their schema.

    Raises:
        ConfigError: with every fault of every file.
    """
    return list_valid_documents(read_price_files(path))


def load_prices(config: Path | None, prices: Path | None) -> PriceBook:
    """Return the price book of today's price files.

    Raises:
        ConfigError: with every fault of every file.
    """
    return PriceBook.from_documents(read_prices(find_prices(config, prices)))


def find_surcharge(config: Path | None) -> Decimal:
    """Return the configuration's surcharge rate, 0 if it has none."""
    text = str(_section(config, "pricing").get("surcharge_rate", "0"))
    try:
        return Decimal(text)
    except InvalidOperation:
        # `tornado-proxy check` reports it; a report needs the rate only for records without a surcharge.
        return Decimal(0)


def _section(config: Path | None, name: str) -> Mapping[str, object]:
    if config is None:
        return {}
    return read_section(read_document(config).content, name)
