"""Every value of the domain is frozen, slotted and documented."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from tornado_proxy.config.bundled import schema
from tornado_proxy.domain import cost, errors, identity, record, request, terms, usage
from tornado_proxy.domain.config import document, fault
from tornado_proxy.domain.usage import Meter

VALUES = [
    value
    for module in (cost, document, errors, fault, identity, record, request, terms, usage)
    for _, value in inspect.getmembers(module, dataclasses.is_dataclass)
    if isinstance(value, type) and value.__module__ == module.__name__
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.__name__)
def test_value_is_frozen_slotted_and_documented(value: type) -> None:
    assert value.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert "__slots__" in vars(value)
    assert inspect.getdoc(value)


def test_schema_of_price_files_has_a_price_for_every_meter() -> None:
    assert {meter.value for meter in Meter} <= _names(schema("prices"))


def _names(rule: object) -> set[str]:
    """Return every name in a schema: members and enum values."""
    if isinstance(rule, dict):
        enum_values = {value for value in rule.get("enum", ()) if isinstance(value, str)}
        return enum_values.union(rule.get("properties", ()), *(map(_names, rule.values())))
    if isinstance(rule, list):
        return set().union(*map(_names, rule))
    return set()
