"""`tornado-proxy pricing import`: prices of a public list taken over into the price files, where that is asked for."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from tornado_proxy.cli.config_lookup import PRICES, PRICES_CONFIG, is_bundled, named_config, reporting
from tornado_proxy.cli.price_lists import FILE, MODELS, ONLY, compare_with, known_endpoints
from tornado_proxy.cli.pricing_diff import print_differences
from tornado_proxy.config.files import read_document
from tornado_proxy.config.validation import check
from tornado_proxy.domain.document import Document
from tornado_proxy.domain.errors import ConfigError
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.pricing.lists.import_plan import ImportOptions, ImportPlan, plan_import
from tornado_proxy.pricing.lists.price_edits import NotEditable, apply_edits


@click.command("import")
@FILE
@PRICES_CONFIG
@PRICES
@MODELS
@ONLY
@click.option("--write", is_flag=True, help="Change the price files; without it they are shown as they would be.")
@click.option(
    "--effective-from",
    type=click.DateTime(["%Y-%m-%d"]),
    help="The prices hold from this day (UTC), ours until then; without it ours were wrong all along.",
)
@click.option("--endpoint", "endpoints", multiple=True, help="Where new models are served, if the list does not say.")
@click.option("--source", help="What the price files name as the source; default: the list and the file's name.")
def import_prices(
    *,
    file: Path,
    config: Path | None,
    prices: Path | None,
    write: bool,
    effective_from: datetime | None,
    **chosen: Any,
) -> None:
    """Take prices over from a public list: show what would change in which file and why; write it only with --write.

    With --write name the models (--model '*' for all).  Written prices are quoted decimals with their unit, the source
    and today's date; nothing is written that the schema or the price rules refuse.  What cannot be written without
    losing a distinction that our files make is listed with the reason.

    \b
    Example:
      tornado-proxy pricing import data.json --model gpt-5.4 --effective-from 2026-12-01
      tornado-proxy pricing import data.json --model gpt-5.4 --effective-from 2026-12-01 --write
    """
    if write and not chosen["models"]:
        raise click.UsageError("name the models to write: --model 'gpt-5*', or --model '*' for all")
    known = known_endpoints()
    unknown = [one for one in chosen["endpoints"] if one not in known]
    if unknown:
        raise click.UsageError(f"{unknown[0]} is no endpoint of the price files; known are {', '.join(sorted(known))}")
    if write and is_bundled(named_config(config), prices):
        raise click.UsageError(
            "these are the prices that came with the program, and an update replaces them; copy them, and name the "
            "copy with --prices or in the configuration (pricing.path)"
        )
    with reporting():
        # What was taken over for that day already is the same then, and nothing is left to write.
        since = None if effective_from is None else effective_from.replace(tzinfo=UTC)
        comparison = compare_with(file, config, prices, since)
        picked = comparison.choose(chosen["models"], chosen["only"])
        how = ImportOptions(
            chosen["source"] or f"{comparison.listed.kind} ({file.name})",
            datetime.now(UTC).date(),
            None if effective_from is None else effective_from.date(),
            chosen["endpoints"],
        )
        print_differences(comparison, picked, "text")
        plan = plan_import(comparison.book, comparison.compared, picked, how)
        _carry_out(plan, comparison.documents, write=write)


def _carry_out(plan: ImportPlan, documents: Sequence[Document], *, write: bool) -> None:
    """Show what changes in each file, and write it if that was asked for: all files or none."""
    for one, reason in plan.refused:
        click.echo(f"not written: {one.listed_model.name} {one.listed.meter}: {reason}")
    changed: list[tuple[Path, str]] = []
    for document in documents:
        content: Any = document.content
        edits = plan.edits.get(content["provider"], [])
        if edits:
            path = Path(document.file)
            before = path.read_text("utf-8")
            try:
                after = apply_edits(before, edits)
            except NotEditable as error:
                raise click.ClickException(f"{path}: {error}") from None
            click.echo("".join(_unified(path, before, after)), nl=False)
            changed.append((path, after))
    _check(documents, dict(changed))
    if not changed:
        click.echo("nothing to write")
    elif not write:
        click.echo("nothing was written; --write writes it")
    else:
        for path, text in changed:
            _replace(path, text)
            click.echo(f"written: {path}; a running server takes it on SIGHUP")


def _check(documents: Sequence[Document], changed: dict[Path, str]) -> None:
    """Raise ConfigError unless the files would be valid, each by its schema and all together."""
    checked: list[Document] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, document in enumerate(documents):
            text = changed.get(Path(document.file))
            if text is not None:
                copy = Path(folder) / f"{number}.yaml"
                copy.write_text(text, "utf-8")
                parsed = read_document(copy)
                document = Document(document.file, parsed.content, parsed.lines)  # the one to be
            checked.append(document)
    faults = [fault for document in checked for fault in check(document, "prices")]
    if faults:
        raise ConfigError(faults)
    PriceBook.from_documents(checked)


def _replace(path: Path, text: str) -> None:
    """Write a file in one step, with the mode of the one before."""
    real = path.resolve()
    temporary = real.with_name(f".{real.name}.new")
    try:
        temporary.write_text(text, "utf-8")
        temporary.chmod(real.stat().st_mode & 0o777)
        os.replace(temporary, real)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None


def _unified(path: Path, before: str, after: str) -> Iterator[str]:
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    for line in difflib.unified_diff(old, new, str(path), str(path), n=2):
        yield line if line.endswith("\n") else line + "\n"
