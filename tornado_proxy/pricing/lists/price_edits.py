"""Edits the text of a price file: everything that an edit does not change keeps its bytes, comments and order.

Text in, text out.  The caller checks that the result is a valid price file before writing it.

Parsing and dumping YAML again would lose comments and layout, so edits are splices at the positions that PyYAML's
nodes carry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import yaml

#: Text that YAML reads as text without quotes; everything else is quoted.
_PLAIN = re.compile(r"[a-z][a-z0-9_]*(?:[-.][a-z0-9_]+)*")

#: Words that YAML 1.1 reads as booleans or null.
_NOT_TEXT = frozenset({"y", "yes", "n", "no", "on", "off", "true", "false", "null"})

#: The smallest price that the schema allows.
_QUANTUM = Decimal("1e-9")


class NotEditable(ValueError):
    """The file is written in a way that cannot be edited; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Card:
    """A price card to write.  `prices` maps meters to USD for one `unit`; `when` has the form of the file."""

    when: Mapping[str, object]
    unit: str
    prices: Mapping[str, Decimal]
    source: str
    checked: str
    effective_from: str | None = None


@dataclass(frozen=True, slots=True)
class CardEdit:
    """New prices on the card `index` of a model.  `checked` is None if only a part of the card was read again.

    With `effective_from` the card ends on that day, and a copy of it with the new prices begins.
    """

    model: str
    index: int
    prices: Mapping[str, Decimal]
    source: str
    checked: str | None
    effective_from: str | None = None


@dataclass(frozen=True, slots=True)
class NewCard:
    """A card to add to a model."""

    model: str
    card: Card


@dataclass(frozen=True, slots=True)
class NewModel:
    """A model to add at the end of the file's models."""

    name: str
    endpoints: Sequence[str]
    cards: Sequence[Card]
    shutdown_date: str | None = None


Edit = CardEdit | NewCard | NewModel


def apply_edits(text: str, edits: Sequence[Edit]) -> str:
    """Return the text of a price file with all of `edits`.

    Raises:
        NotEditable: a card, or the list of cards, is written in one line.
    """
    # Splices insert after a line end; the last line of a file can lack it.
    text = text if text.endswith("\n") else text + "\n"
    models = _members(yaml.compose(text, Loader=yaml.SafeLoader))["models"]
    splices: list[tuple[int, int, str]] = []
    for edit in edits:
        match edit:
            case CardEdit():
                splices += _edit_card(text, _rates(models, edit.model).value[edit.index], edit)
            case NewCard():
                splices.append(_add(text, _rates(models, edit.model), edit.card))
            case NewModel():
                splices.append(_add_model(text, models, edit))
    # From the end to the start, so that earlier positions stay valid.  The number keeps insertions at one position in
    # the order of the edits.
    for _, (start, end, new) in sorted(enumerate(splices), key=lambda item: (item[1][:2], item[0]), reverse=True):
        text = text[:start] + new + text[end:]
    return text


def decimal_text(price: Decimal) -> str:
    """Return a price in the form of the schema: digits, at most nine after the point, no trailing zeros."""
    text = f"{price.quantize(_QUANTUM):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _edit_card(text: str, card: yaml.Node, edit: CardEdit) -> list[tuple[int, int, str]]:
    members = _members(card)
    prices = _members(members["prices"])
    changed = [(prices[meter], f'"{decimal_text(price)}"') for meter, price in edit.prices.items()]
    changed.append((members["source"], _quoted(edit.source)))
    if edit.checked is not None:
        changed.append((members["checked"], edit.checked))
    if edit.effective_from is None:
        return [(node.start_mark.index, node.end_mark.index, new) for node, new in changed]
    start, end = _lines(text, card)
    ended = _put_date(text, card, "effective_until", edit.effective_from)
    begun = _put_date(text, card, "effective_from", edit.effective_from)
    # The copy is made of text, so that it keeps the comments and the layout of the card.
    copy = text[start:end]
    splices = [*((node.start_mark.index, node.end_mark.index, new) for node, new in changed), begun]
    for begin, stop, new in sorted(splices, reverse=True):
        copy = copy[: begin - start] + new + copy[stop - start :]
    return [ended, (end, end, copy)]


def _put_date(text: str, card: yaml.Node, key: str, day: str) -> tuple[int, int, str]:
    """Return the splice that sets `key` of a card to `day`."""
    members = _members(card)
    if key in members:
        node = members[key]
        return node.start_mark.index, node.end_mark.index, day
    # After `unit`, which every card has: `when`, the first member, can be missing.
    unit = members["unit"]
    at = _line_end(text, unit.end_mark.index)
    return at, at, f"{' ' * card.start_mark.column}{key}: {day}\n"


def _add(text: str, rates: yaml.Node, card: Card) -> tuple[int, int, str]:
    last = rates.value[-1]
    _, end = _lines(text, last)
    # The mark of a list item is after its "- ".
    return end, end, _card_text(card, " " * (last.start_mark.column - 2))


def _add_model(text: str, models: yaml.Node, edit: NewModel) -> tuple[int, int, str]:
    assert isinstance(models, yaml.MappingNode)
    key, last = models.value[-1]
    _, end = _lines(text, last)
    indent = " " * key.start_mark.column
    # The schema requires the status: a model with a known end is deprecated.
    status = "deprecated" if edit.shutdown_date else "active"
    lines = [f"{indent}{_text(edit.name)}:", f"{indent}  status: {status}"]
    if edit.shutdown_date:
        lines.append(f"{indent}  shutdown_date: {edit.shutdown_date}")
    lines += [f"{indent}  endpoints: {json.dumps(list(edit.endpoints))}", f"{indent}  rates:"]
    cards = "".join(_card_text(card, f"{indent}    ") for card in edit.cards)
    return end, end, "\n".join(lines) + "\n" + cards


def _card_text(card: Card, indent: str) -> str:
    members: list[str] = []
    if card.when:
        members.append(f"when: {_flow(card.when)}")
    members.append(f"unit: {card.unit}")
    if card.effective_from is not None:
        members.append(f"effective_from: {card.effective_from}")
    prices = ", ".join(f'{meter}: "{decimal_text(price)}"' for meter, price in card.prices.items())
    members += [f"prices: {{{prices}}}", f"source: {_quoted(card.source)}", f"checked: {card.checked}"]
    first, *rest = members
    return "".join([f"{indent}- {first}\n", *(f"{indent}  {member}\n" for member in rest)])


def _flow(value: object) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_text(str(name))}: {_flow(member)}' for name, member in value.items())}}}"
    return str(value) if isinstance(value, int) else _text(str(value))


def _text(text: str) -> str:
    return text if _PLAIN.fullmatch(text) and text not in _NOT_TEXT else _quoted(text)


def _quoted(text: str) -> str:
    # JSON text is a valid double-quoted YAML scalar.
    return json.dumps(text, ensure_ascii=False)


def _rates(models: yaml.Node, name: str) -> yaml.SequenceNode:
    rates = _members(_members(models)[name])["rates"]
    assert isinstance(rates, yaml.SequenceNode)
    if _in_one_line(rates) or any(_in_one_line(card) for card in rates.value):
        raise NotEditable(f"the rates of {name} are written in one line; write each member on a line of its own")
    return rates


def _in_one_line(node: yaml.Node) -> bool:
    return isinstance(node, yaml.CollectionNode) and bool(node.flow_style)


def _members(node: yaml.Node | None) -> dict[str, yaml.Node]:
    assert isinstance(node, yaml.MappingNode)
    return {key.value: value for key, value in node.value}


def _lines(text: str, node: yaml.Node) -> tuple[int, int]:
    """Return the start of the first line and the end of the last line of a block.

    A collection's own end mark is after the comments and blank lines that follow it, so the end is that of its last
    scalar.
    """
    last = node
    while isinstance(last, yaml.CollectionNode) and not _in_one_line(last) and last.value:
        last = last.value[-1][1] if isinstance(last, yaml.MappingNode) else last.value[-1]
    return text.rfind("\n", 0, node.start_mark.index) + 1, _line_end(text, last.end_mark.index)


def _line_end(text: str, index: int) -> int:
    end = text.find("\n", index)
    return len(text) if end < 0 else end + 1
