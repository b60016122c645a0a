"""What holds for every value of the domain: it does not change, and holds nothing but its members."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from tornado_proxy.config.bundled import schema
from tornado_proxy.domain import cost, document, errors, identity, record, request, usage
from tornado_proxy.domain.usage import Meter

VALUES = [
    value
    for module in (cost, document, errors, identity, record, request, usage)
    for _, value in inspect.getmembers(module, dataclasses.is_dataclass)
    if value.__module__ == module.__name__
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.__name__)
def test_a_value_is_frozen_slotted_and_documented(value: type) -> None:
    assert value.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert "__slots__" in vars(value)
    assert inspect.getdoc(value)


def test_every_meter_can_have_a_price() -> None:
    assert {meter.value for meter in Meter} <= _names(schema("prices"))


def _names(rule: object) -> set[str]:
    """Every name that a schema knows: members and words of lists."""
    if isinstance(rule, dict):
        listed = {word for word in rule.get("enum", ()) if isinstance(word, str)}
        return listed.union(rule.get("properties", ()), *(map(_names, rule.values())))
    if isinstance(rule, list):
        return set().union(*map(_names, rule))
    return set()
