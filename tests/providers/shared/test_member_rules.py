"""The names that providers' requests use for objects."""

from __future__ import annotations

from tornado_proxy.providers.registry import PROVIDERS
from tornado_proxy.providers.shared.json_body import MAX_NAME_BYTES


def test_every_name_is_short_enough_to_be_found_in_a_long_prompt() -> None:
    rules = [provider.member_rules for provider in PROVIDERS if provider.member_rules is not None]

    assert max(len(name) for rule in rules for name in rule.names) < MAX_NAME_BYTES
