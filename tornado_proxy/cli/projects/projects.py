"""`tornado-proxy project`: adds a project to the configuration; project_list.py shows those that it has."""

from __future__ import annotations

import json
import os
import re
import uuid
from pathlib import Path

import click

from tornado_proxy.auth import api_key
from tornado_proxy.cli.file_replacement import replace_file
from tornado_proxy.cli.projects.project_list import CONFIG, list_projects, show_project
from tornado_proxy.cli.projects.secret_files import write_secret
from tornado_proxy.config.files import read_document, resolve_folder
from tornado_proxy.config.validation import check
from tornado_proxy.domain.config.document import Document, list_children
from tornado_proxy.domain.errors import ConfigError
from tornado_proxy.domain.identity import ApiKey

#: A list of projects without entries, as the shipped file has it.
_NO_PROJECTS = re.compile(r"^projects:[ \t]*(\[[ \t]*\])?[ \t]*$", re.MULTILINE)

#: The start of the first entry; the indentation of a list is free.
_FIRST_ENTRY = re.compile(r"^([ \t]*)-[ \t]", re.MULTILINE)


@click.group(short_help="Add projects to the configuration, and show them.")
def project() -> None:
    """Add projects to the configuration, and show them.

    \b
    Example:
      tornado-proxy project create "Acme research" --key-file acme.key
      tornado-proxy project list
    """


project.add_command(list_projects)
project.add_command(show_project)


@project.command("create")
@click.argument("name")
@CONFIG
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the API key, which mints tokens, to this new file (mode 0600) instead of printing it.",
)
def create(name: str, config: Path, key_file: Path | None) -> None:
    """Add the project NAME with an API key to the file of projects.

    The key's signing secret is written to a file in the folder `secrets` next to the configuration.  The API key is
    printed once and stored nowhere else.

    \b
    Example:
      tornado-proxy project create "Acme research" --key-file acme.key
      tornado-proxy token mint --key-file acme.key --identity ada
    """
    try:
        file = _find_projects_file(config)
        new_key = api_key.generate(str(uuid.uuid4()))
        secret_file = config.parent / "secrets" / f"{_make_slug(name)}-{new_key.project_id[:8]}.secret"
        text = _add_entry(file, _make_entry(name, new_key, os.path.relpath(secret_file, file.parent)))
    except ConfigError as error:
        raise click.ClickException(f"the configuration cannot be used:\n{error}") from None
    if key_file is not None:
        write_secret(key_file, api_key.format_api_key(new_key).reveal())
    # The secret before the entry: an entry without its secret would make the whole configuration unusable.
    _make_secrets_folder(secret_file.parent)
    write_secret(secret_file, new_key.secret.reveal())
    replace_file(resolve_folder(file), text)
    if key_file is None:
        click.echo(api_key.format_api_key(new_key).reveal())
    click.echo(f"added project {new_key.project_id} to {resolve_folder(file)}", err=True)
    click.echo("Send SIGHUP to a running server to load it.", err=True)


def _find_projects_file(config: Path) -> Path:
    """Return the file that the configuration names; it may be missing."""
    projects = dict(list_children(read_document(config).content)).get("projects")
    if not isinstance(projects, str):
        raise click.ClickException(
            f"the projects are not in a file of their own; add the project to {config} by hand, with a key of "
            "`tornado-proxy key create`"
        )
    path = config.parent / projects
    return path / "projects.yaml" if path.is_dir() else path


def _make_slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "project"


def _make_entry(name: str, key: ApiKey, secret_file: str) -> list[str]:
    return [
        f"- id: {key.project_id}",
        # JSON text is YAML too, with every character that could end it escaped.
        f"  name: {json.dumps(name)}",
        "  api_keys:",
        f"    - {{id: {key.id}, secret: {{file: {json.dumps(secret_file)}}}}}",
    ]


def _add_entry(file: Path, entry: list[str]) -> str:
    """Return the text of the file with one more entry; other lines, and comments, stay.

    Raises:
        ConfigError: the file is not valid, or the entry is not.
    """
    old = file.read_text("utf-8") if file.exists() else "projects: []\n"
    first = _FIRST_ENTRY.search(old, old.find("projects:"))
    indentation = "  " if first is None else first[1]
    lines = "".join(f"{indentation}{line}\n" for line in entry)
    if first is None:
        new = _NO_PROJECTS.sub(lambda _: f"projects:\n{lines.rstrip()}", old, count=1)
    else:
        new = f"{old.rstrip()}\n{lines}"
    _check_text(file, new, entry)
    return new


def _check_text(file: Path, text: str, entry: list[str]) -> None:
    """Raise an error unless `text` is a valid file of projects that ends with `entry`."""
    candidate = file.with_name(f".{file.name}.new")
    try:
        candidate.write_text(text, "utf-8")
        parsed = read_document(candidate)
    except OSError as error:
        raise click.ClickException(f"{resolve_folder(file)} cannot be written: {error.strerror}") from None
    finally:
        candidate.unlink(missing_ok=True)
    document = Document(str(file), parsed.content, parsed.lines)
    faults = check(document, "projects")
    if faults:
        raise ConfigError(faults)
    entries = list_children(dict(list_children(document.content)).get("projects"))
    ids = [dict(list_children(child)).get("id") for _, child in entries]
    if not ids or f"- id: {ids[-1]}" != entry[0]:
        raise click.ClickException(f"{file} has a form that cannot be edited; add these lines:\n" + "\n".join(entry))


def _make_secrets_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"{folder} cannot be made: {error.strerror}") from None
