from __future__ import annotations

from tornado_proxy.domain.request import Spend, make_spend
from tornado_proxy.domain.terms import NO_TERMS, Terms
from tornado_proxy.domain.usage import Meter

METERS = frozenset({Meter.INPUT})


def test_only_spends_of_models_with_an_ordinary_name_are_kept() -> None:
    assert make_spend("gpt-5.4", METERS, Terms("flex")) == Spend("gpt-5.4", METERS, terms=Terms("flex"))
    assert make_spend("gpt-5.4", METERS, NO_TERMS) is make_spend("gpt-5.4", METERS, NO_TERMS)
    assert make_spend("x" * 200, METERS, NO_TERMS) == Spend("x" * 200, METERS)
    assert make_spend("x" * 200, METERS, NO_TERMS) is not make_spend("x" * 200, METERS, NO_TERMS)
