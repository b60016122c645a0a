"""`tornado-proxy pricing diff`: our prices compared with those of a public list."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import click

from tornado_proxy.cli.options.config_lookup import PRICES, PRICES_CONFIG, exit_on_errors
from tornado_proxy.cli.options.format_option import format_option
from tornado_proxy.cli.pricing.price_lists import FILE, MODELS, ONLY, ListComparison, compare_with
from tornado_proxy.pricing.lists.comparison import ComparedPrice, Finding
from tornado_proxy.reports.model_prices import describe_unit
from tornado_proxy.reports.price_differences import COLUMNS, difference_members
from tornado_proxy.wire.csv_cells import write_rows


@click.command(short_help="Compare the price files with a public list.")
@FILE
@PRICES_CONFIG
@PRICES
@MODELS
@ONLY
@click.option("--exit-code", is_flag=True, help="Exit with status 1 if there are differences, for nightly jobs.")
@format_option("text", "csv", "json")
def diff(
    *,
    file: Path,
    config: Path | None,
    prices: Path | None,
    exit_code: bool,
    output_format: str,
    **chosen: tuple[str, ...],
) -> None:
    """Compare the price files with a public list, model by model and meter by meter.  Changes nothing.

    FILE is LiteLLM's model_prices_and_context_window.json, or genai-prices' data.json or provider YAML.  A list can be
    wrong: `ours` is printed with its source and the date on which it was checked.

    \b
    Example:
      tornado-proxy pricing diff model_prices_and_context_window.json --only differs
    """
    with exit_on_errors():
        comparison = compare_with(file, config, prices)
        differences = comparison.choose(chosen["models"], chosen["only"])
        print_differences(comparison, differences, output_format)
        if exit_code and differences:
            sys.exit(1)


def print_differences(comparison: ListComparison, differences: Sequence[ComparedPrice], output_format: str) -> None:
    """Print `differences` to standard output, and a summary of the whole comparison."""
    out = sys.stdout
    if output_format == "csv":
        write_rows(out, COLUMNS, ([row[name] for name in COLUMNS] for row in map(difference_members, differences)))
    elif output_format == "json":
        out.write(json.dumps([difference_members(compared) for compared in differences], indent=2) + "\n")
    else:
        _print_text(differences, out)
    # Keep the summary out of files for machines.
    _print_summary(comparison, out if output_format == "text" else sys.stderr)
    out.flush()


def _print_text(differences: Iterable[ComparedPrice], out: IO[str]) -> None:
    previous_model = None
    for compared in differences:
        row = difference_members(compared)
        model = f"{row['provider']}/{row['model']}"
        # The list is grouped by model: one heading for each.
        if model != previous_model:
            new = " (new model)" if compared.finding is Finding.NEW_MODEL else ""
            out.write(f"{model}{new}\n")
            previous_model = model
        when = f" ({row['when']})" if row["when"] else ""
        note = ""
        if compared.entry is not None:
            note = f"\n    ours: {row['our_source']}; checked {row['our_checked']}"
        elif compared.finding is Finding.OTHER_TERMS:
            note = "\n    our price depends on more terms than the list distinguishes"
        unit = describe_unit(compared.listed.unit)
        out.write(f"  {row['meter']}{when}: ours {row['ours'] or 'none'}, theirs {row['theirs']} {unit}{note}\n")


def _print_summary(comparison: ListComparison, out: IO[str]) -> None:
    listed, compared = comparison.listed, comparison.compared
    counts = Counter(price.finding for price in compared)
    new_models = {price.listed_model.name for price in compared if price.finding is Finding.NEW_MODEL}
    out.write(
        f"{listed.kind}: {len(listed.models)} models, {sum(counts.values())} prices: {counts[Finding.SAME]} agree, "
        f"{counts[Finding.DIFFERS]} differ, {counts[Finding.MISSING]} we do not have, {counts[Finding.OTHER_TERMS]} we "
        f"have on other terms, {counts[Finding.NEW_MODEL]} are of {len(new_models)} models that we do not have\n"
    )
    if listed.skipped:
        out.write("not read from the list:\n")
        for reason, count in listed.skipped.most_common():
            out.write(f"  {count} x {reason}\n")
