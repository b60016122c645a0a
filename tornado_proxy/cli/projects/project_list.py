"""`tornado-proxy project list` and `show`: the projects of a configuration, without their secrets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import yaml
from rich.table import Table

from tornado_proxy.cli.options.config_lookup import exit_on_errors
from tornado_proxy.cli.options.config_option import config_option
from tornado_proxy.cli.options.format_option import format_option
from tornado_proxy.cli.tables import print_table, printable_text
from tornado_proxy.config.loading import read_project_documents
from tornado_proxy.domain.project_lookup import match_projects

#: A project as its file has it.
_Section = dict[str, Any]

CONFIG = config_option("The configuration that names the file of projects.")


@click.command("list")
@CONFIG
@format_option("table", "json")
def list_projects(config: Path, output_format: str) -> None:
    """List the projects of the configuration.

    Only the files of projects are read, not the secrets that they refer to.

    \b
    Example:
      tornado-proxy project list --config conf/proxy.yaml
    """
    with exit_on_errors():
        rows = [_summarize(section) for _, section in _read_sections(config)]
    if output_format == "json":
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table()
    for name in ("id", "name", "API keys", "disabled", "members", "providers", "models"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(printable_text(_format_cell(value)) for value in row.values()))
    print_table(table, sys.stdout)


@click.command("show")
@click.argument("wanted", metavar="PROJECT")
@CONFIG
@format_option("yaml", "json")
def show_project(wanted: str, config: Path, output_format: str) -> None:
    """Show the project with the id or name PROJECT as its file has it.

    A secret is shown as the reference in the file, {env: NAME} or {file: PATH}; it is not read.

    \b
    Example:
      tornado-proxy project show "Acme research"
    """
    with exit_on_errors():
        sections = _read_sections(config)
        ids = match_projects({section["id"]: section["name"] for _, section in sections}, wanted)
        found = [(place, section) for place, section in sections if section["id"] in ids]
    if len(found) != 1:
        problem = "several projects have" if found else "no project has"
        raise click.ClickException(f"{problem} the id or name {wanted!r}; `tornado-proxy project list` shows all ids")
    ((place, section),) = found
    if output_format == "json":
        click.echo(json.dumps(section, indent=2, default=str))
    else:
        click.echo(f"# {place}\n{yaml.safe_dump(section, sort_keys=False)}", nl=False)


def _read_sections(config: Path) -> list[tuple[str, _Section]]:
    """Return the projects as their files have them, each with its place, "file:line".

    Raises:
        ConfigError: a file has faults.
    """
    sections: list[tuple[str, _Section]] = []
    for document in read_project_documents(config):
        content: Any = document.content  # checked against the schema
        for index, section in enumerate(content["projects"]):
            place = document.fault(("projects", index), "")
            sections.append((f"{place.file}:{place.line}", section))
    return sections


def _summarize(section: _Section) -> dict[str, object]:
    """Return the members of a row of the list; `models` is null if the project may use all."""
    keys = section.get("api_keys", [])
    disabled = sum(bool(key.get("disabled")) for key in keys)
    return {
        "id": section["id"],
        "name": section["name"],
        "api_keys": len(keys) - disabled,
        "disabled_api_keys": disabled,
        "members": len(section.get("members", [])),
        "providers": list(section.get("providers", {})),
        "models": section.get("models"),
    }


def _format_cell(value: object) -> str:
    if value is None:
        return "all"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
