"""Converts the facts that rate a later response to the text of a record's column `kept_facts`, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tornado_proxy.domain.cost import BillRates
from tornado_proxy.domain.identity import KeyId
from tornado_proxy.domain.request import DeferredRatingFacts
from tornado_proxy.domain.terms import Terms

#: The owners of a provider key, as the column `key_owner` has them too.
SERVER, PROJECT = "server", "project"

#: The terms of a request that its later response does not repeat.
_DEFERRED_TERMS = ("service_tier", "cache_ttl", "completion_window")


def read_deferred_facts(text: str | None) -> DeferredRatingFacts:
    """Return the facts of a pending record's request; empty ones for a record of an earlier version."""
    if text is None:
        return DeferredRatingFacts()
    members = json.loads(text)
    terms = Terms(**{name: members.get(name) for name in _DEFERRED_TERMS})
    return DeferredRatingFacts(
        terms,
        members.get("image_model"),
        members.get("body_bytes", 0),
        members.get("output_bytes", 0),
        _read_key(members),
        members.get("charges_code_execution", False),
        _read_rates(members),
        members.get("provider_region"),
    )


def _read_key(members: Mapping[str, Any]) -> KeyId | None:
    fingerprint = members.get("key_id")
    if fingerprint is None:
        return None
    return KeyId(members.get("key_name", ""), fingerprint, own=members.get("key_owner") == PROJECT)


def _read_rates(members: Mapping[str, Any]) -> BillRates | None:
    surcharge = members.get("surcharge_rate")
    return None if surcharge is None else BillRates(Decimal(surcharge), Decimal(members.get("discount_rate", 0)))


def format_deferred_facts(facts: DeferredRatingFacts) -> str:
    """Return the facts as text of the column `kept_facts`."""
    key = facts.made_with
    return json.dumps(
        {
            **{name: getattr(facts.terms, name) for name in _DEFERRED_TERMS},
            "image_model": facts.image_model,
            "body_bytes": facts.body_bytes,
            "output_bytes": facts.output_bytes,
            "key_id": None if key is None else key.fingerprint,
            "key_name": None if key is None else key.name,
            "key_owner": None if key is None else PROJECT if key.own else SERVER,
            "charges_code_execution": facts.charges_code_execution,
            "surcharge_rate": None if facts.rates is None else str(facts.rates.surcharge),
            "discount_rate": None if facts.rates is None else str(facts.rates.discount),
            "provider_region": facts.provider_region,
        }
    )
