"""Secrets of the state: encrypted for one place, opened by any key of the ring."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from tornado_proxy.domain.identity import Secret
from tornado_proxy.domain.key_ring import CannotOpen, Place, parse_key_ring

OLD = "k1:" + base64.b64encode(b"1" * 32).decode()
NEW = "k2:" + base64.b64encode(b"2" * 32).decode()

PLACE = Place("project-a", "openai", "api_key")
SECRET = Secret("sk-of-the-project-0123456789")


def test_secret_is_opened_at_its_place_and_is_stored_in_no_readable_form() -> None:
    ring = parse_key_ring(OLD)

    stored = ring.seal(SECRET, PLACE)

    assert ring.open(stored, PLACE) == SECRET
    assert stored.startswith("v1.k1.")
    assert SECRET.reveal() not in stored
    assert b"sk-of" not in base64.b64decode(stored.rpartition(".")[2])
    assert ring.seal(SECRET, PLACE) != stored  # another nonce


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(replace(PLACE, project_id="project-b"), id="another project"),
        pytest.param(replace(PLACE, provider="anthropic"), id="another provider"),
        pytest.param(replace(PLACE, field="base_url"), id="another field"),
    ],
)
def test_moved_secret_cannot_be_opened(place: Place) -> None:
    ring = parse_key_ring(OLD)

    with pytest.raises(CannotOpen):
        ring.open(ring.seal(SECRET, PLACE), place)


def test_authenticated_text_names_version_project_provider_and_field() -> None:
    assert PLACE.encode() == b"v1|project-a|openai|api_key"


def test_first_key_encrypts_and_all_decrypt() -> None:
    stored = parse_key_ring(OLD).seal(SECRET, PLACE)
    both = parse_key_ring(f"{NEW},{OLD}")

    assert both.open(stored, PLACE) == SECRET
    assert not both.is_sealed_with_first(stored)
    again = both.seal(SECRET, PLACE)
    assert both.is_sealed_with_first(again)
    assert parse_key_ring(NEW).open(again, PLACE) == SECRET
    with pytest.raises(CannotOpen, match="no key 'k1'"):
        parse_key_ring(NEW).open(stored, PLACE)


@pytest.mark.parametrize("stored", ["", "v1", "v1.k1", "v1.k1.", "v1.k1.%%%", "v1.k1.AAAA", "v2.k1.AAAA", "v1..AAAA"])
def test_damaged_text_cannot_be_opened(stored: str) -> None:
    with pytest.raises(CannotOpen):
        parse_key_ring(OLD).open(stored, PLACE)


def test_key_of_the_same_name_with_other_bytes_opens_nothing() -> None:
    stored = parse_key_ring(OLD).seal(SECRET, PLACE)

    with pytest.raises(CannotOpen, match="other bytes"):
        parse_key_ring("k1:" + base64.b64encode(b"3" * 32).decode()).open(stored, PLACE)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "NAME:BASE64"),
        ("k1", "NAME:BASE64"),
        (base64.b64encode(b"1" * 32).decode(), "NAME:BASE64"),
        (f"{OLD},", "key 2 of the ring must have the form"),
        ("k 1:AAAA", "NAME:BASE64"),
        (f"{'n' * 33}:AAAA", "NAME:BASE64"),
        ("k1:", "32 bytes"),
        ("k1:secret-text", "32 bytes"),
        ("k1:" + base64.b64encode(b"1" * 31).decode(), "32 bytes"),
        ("k1:" + base64.b64encode(b"1" * 33).decode(), "32 bytes"),
        ("k1:" + base64.b64encode(b"1" * 32).decode().rstrip("="), "32 bytes"),
        ("k1:" + base64.urlsafe_b64encode(b"\xff" * 32).decode(), "32 bytes"),
        (f"{OLD},{OLD}", "name of another one"),
    ],
)
def test_malformed_ring_is_refused_without_a_part_of_a_key(text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule) as raised:
        parse_key_ring(text)

    assert "secret-text" not in str(raised.value)
    assert OLD[3:] not in str(raised.value)


def test_ring_does_not_show_its_keys() -> None:
    assert OLD[3:10] not in repr(parse_key_ring(OLD))
