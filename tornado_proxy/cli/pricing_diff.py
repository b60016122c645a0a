"""`tornado-proxy pricing diff`: our prices beside a public list's."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import click

from tornado_proxy.cli.config_lookup import PRICES, PRICES_CONFIG, reporting
from tornado_proxy.cli.price_lists import FILE, MODELS, ONLY, ListComparison, compare_with
from tornado_proxy.ledger.rows import format_decimal
from tornado_proxy.pricing.lists.comparison import ComparedPrice, Finding
from tornado_proxy.reports.explanation import conditions_words, unit_words
from tornado_proxy.wire.csv_cells import write_rows

_COLUMNS = (
    *("provider", "model", "meter", "when", "finding", "ours", "theirs", "unit"),
    *("our_source", "our_checked", "why"),
)


@click.command()
@FILE
@PRICES_CONFIG
@PRICES
@MODELS
@ONLY
@click.option("--exit-code", is_flag=True, help="End with status 1 where something differs, as a nightly job wants it.")
@click.option(
    "--format",
    "shape",
    type=click.Choice(["text", "csv", "json"]),
    default="text",
    show_default=True,
    help="For people, spreadsheets or programs.",
)
def diff(
    *, file: Path, config: Path | None, prices: Path | None, exit_code: bool, shape: str, **chosen: tuple[str, ...]
) -> None:
    """Compare the price files with a public list, model by model and meter by meter.  Changes nothing.

    FILE is LiteLLM's model_prices_and_context_window.json, or genai-prices' data.json or provider YAML.  Who is right
    is not for the list to say: `ours` comes with the source it was read from and the date.

    \b
    Example:
      tornado-proxy pricing diff model_prices_and_context_window.json --only differs
    """
    with reporting():
        comparison = compare_with(file, config, prices)
        found = comparison.choose(chosen["models"], chosen["only"])
        print_differences(comparison, found, shape)
        if exit_code and found:
            sys.exit(1)


def print_differences(comparison: ListComparison, chosen: Sequence[ComparedPrice], shape: str) -> None:
    """Print the `chosen` ones, and what the whole comparison came to."""
    out = sys.stdout
    if shape == "csv":
        write_rows(out, _COLUMNS, ([row[name] for name in _COLUMNS] for row in map(_members, chosen)))
    elif shape == "json":
        out.write(json.dumps([_members(one) for one in chosen], indent=2) + "\n")
    else:
        _print_text(chosen, out)
    _summary(comparison, out if shape == "text" else sys.stderr)
    out.flush()


def _print_text(chosen: Iterable[ComparedPrice], out: IO[str]) -> None:
    before = None
    for one in chosen:
        row = _members(one)
        name = f"{row['provider']}/{row['model']}"
        if name != before:
            new = " (new model)" if one.finding is Finding.NEW_MODEL else ""
            out.write(f"{name}{new}\n")
            before = name
        when = f" ({row['when']})" if row["when"] else ""
        why = ""
        if one.entry is not None:
            why = f"\n    ours: {row['our_source']}; checked {row['our_checked']}"
        elif one.finding is Finding.OTHER_TERMS:
            why = "\n    our price depends on more terms than the list distinguishes"
        unit = unit_words(one.listed.unit)
        out.write(f"  {row['meter']}{when}: ours {row['ours'] or 'none'}, theirs {row['theirs']} {unit}{why}\n")


def _members(one: ComparedPrice) -> dict[str, str | None]:
    listed, card = one.listed, one.entry.card if one.entry is not None else None
    terms = [f"{name} {word}" for name, word in listed.terms.pairs()]
    if listed.over is not None:
        terms.append(f"input_tokens over {listed.over}")
    return {
        "provider": one.listed_model.provider,
        "model": one.listed_model.name,
        "meter": listed.meter.value,
        "when": ", ".join(terms),
        "finding": one.finding.value,
        "ours": None if one.our_price is None else format_decimal(one.our_price.normalize()),
        "theirs": format_decimal(listed.price.normalize()),
        "unit": listed.unit,
        "our_source": None if card is None else card.source,
        "our_checked": None if card is None else card.checked,
        "why": one.why or (conditions_words(card.conditions) if card is not None else ""),
    }


def _summary(comparison: ListComparison, out: IO[str]) -> None:
    listed, compared = comparison.listed, comparison.compared
    counts = Counter(one.finding for one in compared)
    new = {one.listed_model.name for one in compared if one.finding is Finding.NEW_MODEL}
    out.write(
        f"{listed.kind}: {len(listed.models)} models, {sum(counts.values())} prices: {counts[Finding.SAME]} agree, "
        f"{counts[Finding.DIFFERS]} differ, {counts[Finding.MISSING]} we do not have, {counts[Finding.OTHER_TERMS]} we "
        f"have on other terms, {counts[Finding.NEW_MODEL]} are of {len(new)} models that we do not have\n"
    )
    if listed.skipped:
        out.write("not read from the list:\n")
        for reason, count in listed.skipped.most_common():
            out.write(f"  {count} x {reason}\n")
