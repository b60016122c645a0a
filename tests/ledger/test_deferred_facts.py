"""The facts that rate a later response come back from the column of a record."""

from __future__ import annotations

import json
from decimal import Decimal

from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.domain.cost import BillRates
from tornado_proxy.domain.request import DeferredRatingFacts
from tornado_proxy.domain.terms import Terms
from tornado_proxy.ledger.deferred_facts import read_deferred_facts
from tornado_proxy.ledger.rows import make_record_row


def test_deferred_facts_are_read_as_they_were_written() -> None:
    facts = DeferredRatingFacts(
        Terms(service_tier="flex", cache_ttl="1h", completion_window="2h"),
        "gpt-image-1.5",
        400,
        rates=BillRates(Decimal("0.0333"), Decimal("0.125")),
        provider_region="eu",
    )

    text = make_record_row(make_record(make_intent("r1"), deferred_facts=facts)).kept_facts

    assert isinstance(text, str)
    assert read_deferred_facts(text) == facts
    assert read_deferred_facts(None) == DeferredRatingFacts()
    assert read_deferred_facts(json.dumps({"service_tier": "flex"})) == DeferredRatingFacts(Terms(service_tier="flex"))
