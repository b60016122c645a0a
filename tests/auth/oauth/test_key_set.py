from __future__ import annotations

import json
from typing import Any

import jwt
import pytest

from tests.oauth.tokens import ec_key, ed_key, key_set, p384_key, rsa_key
from tornado_proxy.auth.oauth.key_set import parse_key_set

RSA, EC, ED = rsa_key().jwk, ec_key().jwk, ed_key().jwk


def parse(*keys: dict[str, Any]) -> set[tuple[str, str]]:
    return {(kid, key.algorithm) for kid, key in parse_key_set(json.dumps({"keys": keys}).encode()).keys.items()}


def without(key: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in key.items() if name not in names}


def test_keys_of_all_algorithms_are_read_also_without_alg_and_use() -> None:
    expected = {("rsa", "RS256"), ("ec", "ES256"), ("ed", "EdDSA")}

    assert parse(RSA, EC, ED) == expected
    assert parse(*(without(key, "alg", "use") for key in (RSA, EC, ED))) == expected


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(rsa_key("short", 1024).jwk, id="RSA of 1024 bits"),
        pytest.param({**RSA, "use": "enc"}, id="for encryption"),
        pytest.param({**RSA, "key_ops": ["encrypt"]}, id="operation encrypt"),
        pytest.param({**RSA, "key_ops": "verify"}, id="operations are no list"),
        pytest.param({**RSA, "alg": "RS512"}, id="RS512"),
        pytest.param({**RSA, "alg": "HS256"}, id="RSA key marked HS256"),
        pytest.param({**RSA, "alg": "ES256"}, id="RSA key marked ES256"),
        pytest.param({**EC, "alg": "RS256"}, id="EC key marked RS256"),
        pytest.param({"kty": "oct", "k": "AAAA", "kid": "oct", "alg": "HS256"}, id="symmetric"),
        pytest.param({**EC, "crv": "P-384"}, id="point of another curve"),
        pytest.param(
            {**json.loads(jwt.get_algorithm_by_name("ES384").to_jwk(p384_key().public_key())), "kid": "p384"},
            id="P-384",
        ),
        pytest.param({**ED, "crv": "Ed448"}, id="Ed448"),
        pytest.param(without(RSA, "kid"), id="no kid"),
        pytest.param({**RSA, "kid": ""}, id="empty kid"),
        pytest.param({**RSA, "kid": 7}, id="kid is a number"),
        pytest.param({**RSA, "kid": "k" * 1025}, id="long kid"),
        pytest.param(without(RSA, "n"), id="no modulus"),
        pytest.param({**RSA, "n": "%%%"}, id="modulus is no base64url"),
        pytest.param({**RSA, "e": "AQ"}, id="exponent 1"),
        pytest.param({}, id="empty"),
    ],
)
def test_unusable_key_is_left_out_and_the_others_stay(key: dict[str, Any]) -> None:
    assert parse(key, {**ED, "kid": "other"}) == {("other", "EdDSA")}


def test_key_is_found_by_id_and_algorithm_only() -> None:
    keys = parse_key_set(json.dumps(key_set(RSA, EC)).encode())

    assert keys.find("rsa", "RS256") is not None
    assert keys.find("rsa", "ES256") is None
    assert keys.find("ec", "RS256") is None
    assert keys.find("other", "RS256") is None


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(key_set(RSA, {**EC, "kid": "rsa"}), id="two keys with one kid"),
        pytest.param(key_set(*({**RSA, "kid": str(number)} for number in range(101))), id="101 keys"),
        pytest.param({"keys": {}}, id="keys are no list"),
        pytest.param({"keys": ["a"]}, id="a key is no object"),
        pytest.param({}, id="no keys"),
    ],
)
def test_set_that_could_be_read_in_two_ways_is_refused(content: Any) -> None:
    with pytest.raises(ValueError, match="key"):
        parse_key_set(json.dumps(content).encode())


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"not JSON", b"[" * 100_000, b'{"keys": [], "keys": []}', b'{"keys": NaN}']
)
def test_malformed_set_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the messages of the JSON parser are not ours
        parse_key_set(body)
