from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from tornado_proxy.domain.usage import Basis, Meter, Quantity, UsageItem, UsageReport
from tornado_proxy.pricing.book.refusals import RefusalRule, apply_refusal_rules

AT = datetime(2026, 11, 28, tzinfo=UTC)
RULE = RefusalRule(frozenset({"bio"}), frozenset({"cyber"}), others_free=False, effective_from=AT)


def item(refusal: str | None) -> UsageItem:
    return UsageItem((Quantity(Meter.INPUT, Decimal(5)),), model="m", refusal=refusal)


def apply(*refusals: str | None, rule: RefusalRule = RULE, basis: Basis = Basis.REPORTED) -> UsageReport:
    return apply_refusal_rules(UsageReport(tuple(map(item, refusals)), basis, raw="{}"), (rule,), AT)


def test_free_refusals_are_dropped_and_all_other_items_stay() -> None:
    found = apply("cyber", None, "bio")

    assert [entry.refusal for entry in found.items] == [None, "bio"]
    assert found.basis is Basis.REPORTED


def test_report_of_free_refusals_only_is_free_and_keeps_its_raw_usage() -> None:
    assert apply("cyber", "cyber") == UsageReport((), Basis.FREE, raw="{}")


def test_unsettled_report_stays_unsettled() -> None:
    assert apply("cyber", basis=Basis.UNSETTLED).basis is Basis.UNSETTLED


def test_unknown_category_is_charged_and_unsettled() -> None:
    found = apply("chemistry", "cyber")

    assert [entry.refusal for entry in found.items] == ["chemistry"]
    assert found.basis is Basis.UNSETTLED
    assert found.faults == (
        "it is not known whether a refusal of the category 'chemistry' is charged; add it to the price files",
    )


def test_rule_can_make_every_other_category_free() -> None:
    rule = RefusalRule(frozenset({"bio"}), frozenset(), others_free=True)

    assert [entry.refusal for entry in apply("bio", "chemistry", "none", rule=rule).items] == ["bio"]


def test_without_a_rule_for_the_day_every_refusal_is_charged() -> None:
    rule = RefusalRule(frozenset(), frozenset(), others_free=True, effective_until=AT)

    assert apply("cyber", rule=rule).items == (item("cyber"),)
