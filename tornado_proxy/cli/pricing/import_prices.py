"""`tornado-proxy pricing import`: writes prices of a public list into the price files."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from tornado_proxy.cli.file_replacement import replace_file
from tornado_proxy.cli.options.config_lookup import (
    PRICES,
    PRICES_CONFIG,
    exit_on_errors,
    is_bundled,
    named_config,
)
from tornado_proxy.cli.pricing.diff import print_differences
from tornado_proxy.cli.pricing.price_lists import FILE, MODELS, ONLY, compare_with
from tornado_proxy.config.price_files import PriceFile, check_price_file, list_valid_documents
from tornado_proxy.domain.config.document import Document
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.pricing.lists.import_plan import ImportOptions, ImportPlan, plan_import
from tornado_proxy.pricing.lists.price_edits import NotEditable, apply_edits
from tornado_proxy.providers.registry import list_priced_paths


@click.command("import")
@FILE
@PRICES_CONFIG
@PRICES
@MODELS
@ONLY
@click.option("--write", is_flag=True, help="Change the price files; without it the changes are only shown.")
@click.option(
    "--effective-from",
    type=click.DateTime(["%Y-%m-%d"]),
    help="The new prices are valid from this day (UTC), ours until then.  Without it ours were always wrong.",
)
@click.option(
    "--endpoint", "endpoints", multiple=True, help="An endpoint that serves new models, if the list names none."
)
@click.option("--source", help="The source to write into the price files; default: the list and the file's name.")
def import_prices(
    *,
    file: Path,
    config: Path | None,
    prices: Path | None,
    write: bool,
    effective_from: datetime | None,
    **chosen: Any,
) -> None:
    """Import prices from a public list.  Show the changes of each file with their reasons; write them with --write.

    --write needs the names of models (--model '*' for all).  Prices are written as quoted decimals with unit, source
    and today's date.  Nothing is written if the schema or the price rules reject the result.  Prices that cannot be
    written without losing a distinction that our files make are listed with the reason.

    \b
    Example:
      tornado-proxy pricing import data.json --model gpt-5.4 --effective-from 2026-12-01
      tornado-proxy pricing import data.json --model gpt-5.4 --effective-from 2026-12-01 --write
    """
    # A list can be wrong; without this, one command would overwrite every price.
    if write and not chosen["models"]:
        raise click.UsageError("--write needs --model: name the models to write, such as 'gpt-5*', or '*' for all")
    known = list_priced_paths()
    unknown = [endpoint for endpoint in chosen["endpoints"] if endpoint not in known]
    if unknown:
        raise click.UsageError(f"{unknown[0]} is no endpoint of the price files; known are {', '.join(sorted(known))}")
    if write and is_bundled(named_config(config), prices):
        raise click.UsageError(
            "an update of the program replaces the bundled price files; copy them, and name the copy with --prices or "
            "in the configuration (pricing.path)"
        )
    with exit_on_errors():
        # Compare on that day: prices already imported for it are equal, and are not written twice.
        since = None if effective_from is None else effective_from.replace(tzinfo=UTC)
        comparison = compare_with(file, config, prices, since)
        selected = comparison.choose(chosen["models"], chosen["only"])
        options = ImportOptions(
            chosen["source"] or f"{comparison.listed.kind} ({file.name})",
            datetime.now(UTC).date(),
            None if effective_from is None else effective_from.date(),
            chosen["endpoints"],
        )
        print_differences(comparison, selected, "text")
        plan = plan_import(comparison.book, comparison.compared, selected, options)
        _apply_plan(plan, comparison.documents, write=write)


def _apply_plan(plan: ImportPlan, documents: Sequence[Document], *, write: bool) -> None:
    """Show the changes of each file, and write all files if `write` is set."""
    for price, reason in plan.refused:
        click.echo(f"not written: {price.listed_model.name} {price.listed.meter}: {reason}")
    changed: list[tuple[Path, str]] = []
    for document in documents:
        content: Any = document.content
        edits = plan.edits.get(content["provider"], [])
        if edits:
            path = Path(document.file)
            old_text = path.read_text("utf-8")
            try:
                new_text = apply_edits(old_text, edits)
            except NotEditable as error:
                raise click.ClickException(f"{path}: {error}") from None
            click.echo("".join(_unified_diff(path, old_text, new_text)), nl=False)
            changed.append((path, new_text))
    # Check before the first file is written, so that a fault in one file leaves all files unchanged.
    _check_texts(documents, dict(changed))
    if not changed:
        click.echo("nothing to write")
    elif not write:
        click.echo("nothing was written; --write writes it")
    else:
        for path, text in changed:
            replace_file(path, text)
            click.echo(f"written: {path}; send SIGHUP to a running server to load it")


def _check_texts(documents: Sequence[Document], changed: dict[Path, str]) -> None:
    """Raise ConfigError unless the files with the `changed` texts are valid, each by its schema and all together."""
    named = [(Path(document.file), document) for document in documents]
    files = [
        check_price_file(path, changed[path]) if path in changed else PriceFile(document, ())
        for path, document in named
    ]
    PriceBook.from_documents(list_valid_documents(files))


def _unified_diff(path: Path, old_text: str, new_text: str) -> Iterator[str]:
    old, new = old_text.splitlines(keepends=True), new_text.splitlines(keepends=True)
    for line in difflib.unified_diff(old, new, str(path), str(path), n=2):
        # The last line of a file can lack its line end; the next line of the diff would be appended to it.
        yield line if line.endswith("\n") else line + "\n"
