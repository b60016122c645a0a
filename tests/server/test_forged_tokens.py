"""Forged and misplaced OAuth credentials, and malformed requests: each gets its status, none reaches the provider."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.harness import (
    KEY_ID,
    OPENAI_KEY,
    OTHER_PROJECT,
    PROJECT,
    SIGNING_SECRET,
    TIMEOUT_S,
    ProxyProcess,
    mint,
    running_proxy,
)
from tests.oauth.fake_issuer import FakeIssuer, running_fake_issuer
from tests.oauth.tokens import (
    AUDIENCE,
    CLIENT,
    SUBJECT,
    SigningKey,
    claims_of,
    ec_key,
    ed_key,
    encode,
    key_set,
    p384_key,
    rsa_key,
    sign,
)
from tests.replay_provider import ReplayProvider

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
USE = ["can_use_llm_proxy"]
RSA, EC, ED, SHORT, OF_B = rsa_key(), ec_key(), ed_key(), rsa_key("short", 1024), rsa_key("of-b")


@dataclass
class Issuers:
    """Two issuers; the proxy knows the keys of both."""

    a: FakeIssuer
    b: FakeIssuer

    def claims(self, **changes: Any) -> dict[str, Any]:
        return claims_of(self.a.url, **changes)


@pytest.fixture(scope="module")
def issuers() -> Iterator[Issuers]:
    with running_fake_issuer() as a, running_fake_issuer() as b:
        encryption = {**rsa_key("enc").jwk, "use": "enc"}
        a.publish(key_set(RSA, EC, ED, SHORT, encryption))
        b.publish(key_set(OF_B))
        yield Issuers(a, b)


@pytest.fixture(scope="module")
def proxy(
    issuers: Issuers, provider: ReplayProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProxyProcess]:
    def issuer(running: FakeIssuer) -> dict[str, Any]:
        return {"issuer": running.url, "audience": AUDIENCE, "clients": [CLIENT, "studio"]}

    a, b = issuers.a.url, issuers.b.url
    keys = [{"id": KEY_ID, "secret": {"env": "TEST_SIGNING_SECRET"}}]
    members = [
        {"user": SUBJECT, "issuer": a, "permissions": USE},
        {"user": "dev@example.com", "issuer": a, "permissions": USE},
        {"group": "engineering", "issuer": a, "permissions": USE},
        {"user": "idle", "issuer": a},
        {"user": "of-b", "issuer": b, "permissions": USE},
    ]
    other = [{"user": "somebody", "issuer": a, "permissions": USE}]
    projects = [
        {"id": PROJECT, "name": "first", "api_keys": keys, "members": members},
        {"id": OTHER_PROJECT, "name": "other", "members": other},
    ]
    folder = tmp_path_factory.mktemp("forged")
    oauth = [issuer(issuers.a), issuer(issuers.b)]
    with running_proxy(folder, provider.url, oauth=oauth, projects=projects) as running:
        yield running


@pytest.fixture(scope="module")
def client(proxy: ProxyProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=proxy.base_url, timeout=TIMEOUT_S) as opened:
        yield opened


def send(client: httpx.Client, token: str, **how: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}", "Meshagent-Project-Id": PROJECT, **how.pop("headers", {})}
    sent = [(name, value) for name, value in headers.items() if value is not None]
    return client.post(how.pop("path", "/v1/chat/completions"), json=CHAT, headers=sent, **how)


def hmac_token(header: dict[str, Any], claims: dict[str, Any], secret: bytes, algorithm: Any = hashlib.sha256) -> str:
    signed = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}"
    return f"{signed}.{encode(hmac.new(secret, signed.encode(), algorithm).digest())}"


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    return f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}."


def as_signer(key: SigningKey, private: Any) -> SigningKey:
    """Return a key of an attacker under the id of a published key."""
    return SigningKey(key.kid, key.algorithm, private)


def der_signature(issuers: Issuers) -> str:
    signed = sign(EC, issuers.claims()).rsplit(".", 1)[0]
    return f"{signed}.{encode(EC.private.sign(signed.encode(), ec.ECDSA(SHA256())))}"


def change_payload(issuers: Issuers) -> str:
    header, _, signature = sign(RSA, issuers.claims()).split(".")
    return f"{header}.{encode(json.dumps(issuers.claims(sub='admin')).encode())}.{signature}"


def pem(key: SigningKey) -> bytes:
    return key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


ATTACKER = rsa.generate_private_key(65537, 2048)
HS = {"alg": "HS256", "typ": "JWT", "kid": "rsa"}

Forge = Callable[[Issuers], str]

SIGNATURES: dict[str, Forge] = {
    "another RSA key under the id": lambda i: sign(as_signer(RSA, ATTACKER), i.claims()),
    "another EC key under the id": lambda i: sign(as_signer(EC, ec.generate_private_key(ec.SECP256R1())), i.claims()),
    "another Ed25519 key under the id": lambda i: sign(as_signer(ED, ed25519.Ed25519PrivateKey.generate()), i.claims()),
    "changed payload": change_payload,
    "changed signature": lambda i: sign(RSA, i.claims())[:-10] + "AAAAAAAAAA",
    "no signature": lambda i: sign(RSA, i.claims()).rsplit(".", 1)[0] + ".",
    "half a signature": lambda i: sign(RSA, i.claims())[:-100],
    "signature of another token": lambda i: (
        sign(RSA, i.claims(jti="x")).rsplit(".", 1)[0] + "." + sign(RSA, i.claims()).rsplit(".", 1)[1]
    ),
    "EC signature in DER": der_signature,
    **{
        f"alg {name}": lambda i, name=name: unsigned({"alg": name, "kid": "rsa"}, i.claims())  # type: ignore[misc]
        for name in ("none", "None", "NONE", "nOnE", "")
    },
    "HS256 with the public key in PEM": lambda i: hmac_token(HS, i.claims(), pem(RSA)),
    "HS256 with the public key as JWK": lambda i: hmac_token(HS, i.claims(), json.dumps(RSA.jwk).encode()),
    "HS256 with an empty secret": lambda i: hmac_token(HS, i.claims(), b""),
    "HS256 as a participant token, with the public key": lambda i: hmac_token(
        {**HS, "kid": KEY_ID}, i.claims(sub=PROJECT, name="ada"), pem(RSA)
    ),
    "HS256 with an API key, without grants": lambda i: hmac_token(
        {**HS, "kid": KEY_ID}, i.claims(sub=PROJECT, name="ada"), SIGNING_SECRET.encode()
    ),
    "HS384": lambda i: hmac_token({**HS, "alg": "HS384"}, i.claims(), pem(RSA), hashlib.sha384),
    "HS512": lambda i: hmac_token({**HS, "alg": "HS512"}, i.claims(), pem(RSA), hashlib.sha512),
    **{
        f"{name} with the RSA key": lambda i, name=name: jwt.encode(  # type: ignore[misc]
            i.claims(), RSA.private, name, {"kid": "rsa", "typ": "at+jwt"}
        )
        for name in ("RS384", "RS512", "PS256", "PS512")
    },
    "ES384": lambda i: jwt.encode(i.claims(), p384_key(), "ES384", {"kid": "ec", "typ": "at+jwt"}),
    "ES256 in the header of an RSA signature": lambda i: sign(RSA, i.claims(), alg="ES256"),
    "EdDSA in the header of an RSA signature": lambda i: sign(RSA, i.claims(), alg="EdDSA"),
    "RSA key id, EC signature": lambda i: sign(EC, i.claims(), kid="rsa"),
    "EC key id, RSA signature": lambda i: sign(RSA, i.claims(), kid="ec"),
    "Ed25519 key id, RSA signature": lambda i: sign(RSA, i.claims(), kid="ed"),
    "alg in lower case": lambda i: sign(RSA, i.claims(), alg="rs256"),
    "alg missing": lambda i: sign(RSA, i.claims(), alg=None),
    "alg is a number": lambda i: sign(RSA, i.claims(), alg=256),
    "alg is an object": lambda i: sign(RSA, i.claims(), alg={"RS256": 1}),
    "RSA key of 1024 bits, published": lambda i: sign(SHORT, i.claims()),
    "key for encryption, published": lambda i: sign(rsa_key("enc"), i.claims()),
    "key of the other issuer": lambda i: sign(OF_B, i.claims()),
    "key of the other issuer under an id of this one": lambda i: sign(OF_B, i.claims(), kid="rsa"),
    "key of this issuer in the name of the other": lambda i: sign(RSA, i.claims(iss=i.b.url)),
    "unknown key id": lambda i: sign(rsa_key("unknown"), i.claims()),
    **{
        f"key id {kid!r}": lambda i, kid=kid: sign(RSA, i.claims(), kid=kid)  # type: ignore[misc]
        for kid in ("", 7, True, ["rsa"], "RSA", " rsa", "rsa\0", "../../dev/null", "' OR 1=1 --", "k" * 5000)
    },
    "key id missing": lambda i: sign(RSA, i.claims(), kid=None),
    "jku of an attacker": lambda i: sign(SigningKey("x", "RS256", ATTACKER), i.claims(), jku=f"{i.b.url}/evil"),
    "jku, known key id": lambda i: sign(as_signer(RSA, ATTACKER), i.claims(), jku=f"{i.b.url}/evil"),
    "jwk of an attacker": lambda i: sign(
        as_signer(RSA, ATTACKER), i.claims(), jwk=SigningKey("rsa", "RS256", ATTACKER).jwk
    ),
    "x5u of an attacker": lambda i: sign(as_signer(RSA, ATTACKER), i.claims(), x5u=f"{i.b.url}/evil.pem"),
    "x5c of an attacker": lambda i: sign(as_signer(RSA, ATTACKER), i.claims(), x5c=["MIIB"]),
    "crit": lambda i: sign(RSA, i.claims(), crit=["exp"], exp=1),
    "crit with an unknown extension": lambda i: sign(RSA, i.claims(), crit=["x"], x=1),
    "empty crit": lambda i: sign(RSA, i.claims(), crit=[]),
    "b64": lambda i: sign(RSA, i.claims(), b64=False),
    "zip": lambda i: sign(RSA, i.claims(), zip="DEF"),
    "enc": lambda i: sign(RSA, i.claims(), enc="A256GCM"),
    **{
        f"typ {typ!r}": lambda i, typ=typ: sign(RSA, i.claims(), typ=typ)  # type: ignore[misc]
        for typ in ("logout+jwt", "dpop+jwt", "secevent+jwt", "id+jwt", "JWE", "at+jwt ", "", 7, ["at+jwt"])
    },
}

CLAIMS: dict[str, dict[str, Any]] = {
    "iss missing": {"iss": None},
    "iss of nobody": {"iss": "https://evil.example.com"},
    "iss is a list": {"iss": ["https://evil.example.com"]},
    "iss is a number": {"iss": 7},
    "sub missing": {"sub": None},
    "sub empty": {"sub": ""},
    "sub is a number": {"sub": 7},
    "sub with a line end": {"sub": "user-7\n"},
    "sub with NUL": {"sub": "user-7\0"},
    "sub of 256 characters": {"sub": "u" * 256},
    "aud missing": {"aud": None},
    "aud of another service": {"aud": "other"},
    "aud begins alike": {"aud": "llm-proxy-2"},
    "aud in another case": {"aud": "LLM-Proxy"},
    "aud of an ID token": {"aud": CLIENT},
    "aud is an empty list": {"aud": []},
    "aud is a list with a number": {"aud": [AUDIENCE, 7]},
    "aud is an object": {"aud": {AUDIENCE: 1}},
    "exp missing": {"exp": None},
    "exp passed": {"exp": int(time.time()) - 31},
    "exp is text": {"exp": "4000000000"},
    "exp is true": {"exp": True},
    "exp is a list": {"exp": [4_000_000_000]},
    "exp out of range": {"exp": 10**30},
    "exp is negative": {"exp": -1},
    "nbf in the future": {"nbf": int(time.time()) + 3600},
    "nbf is text": {"nbf": "0"},
    "nbf is false": {"nbf": False},
    "iat is text": {"iat": "now"},
    "client missing": {"client_id": None},
    "client not registered": {"client_id": "other"},
    "client in another case": {"client_id": "CLI"},
    "client is a list": {"client_id": [CLIENT]},
    "client registered in a later claim only": {"client_id": "other", "azp": CLIENT},
    "client registered in a later claim, first one null": {"client_id": {}, "azp": CLIENT},
    "azp not registered": {"client_id": None, "azp": "other"},
    "cid not registered": {"client_id": None, "cid": "other"},
    "bound by DPoP": {"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}},
    "bound by mutual TLS": {"cnf": {"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}},
    "cnf empty": {"cnf": {}},
    "ID token with at_hash": {"at_hash": "77QmUPtjPfzWtF2AnpK9RQ"},
    "ID token with c_hash": {"c_hash": "LDktKdoQak3Pk0cnXxCltA"},
    "ID token of Keycloak": {"typ": "ID"},
    "refresh token of Keycloak": {"typ": "Refresh"},
    "logout token of Keycloak": {"typ": "Logout"},
    "ID token of Cognito": {"token_use": "id"},
    "e-mail is a list": {"email": ["dev@example.com"], "email_verified": True},
}

NOT_ALLOWED: dict[str, dict[str, Any]] = {
    "no scope": {"scope": None},
    "another scope": {"scope": "openid email"},
    "scope begins alike": {"scope": "llm_proxy_admin"},
    "scope in another case": {"scope": "LLM_PROXY"},
    "scopes with commas": {"scope": "openid,llm_proxy"},
    "scope is an object": {"scope": {"llm_proxy": True}},
    "scp without it": {"scope": None, "scp": ["openid"]},
    "another user": {"sub": "user-8"},
    "user in another case": {"sub": "USER-7"},
    "user of the other issuer": {"sub": "of-b"},
    "member without a permission": {"sub": "idle"},
    "e-mail not verified": {"sub": "u", "email": "dev@example.com"},
    "e-mail verified as text": {"sub": "u", "email": "dev@example.com", "email_verified": "true"},
    "e-mail verified as a number": {"sub": "u", "email": "dev@example.com", "email_verified": 1},
    "another group": {"sub": "u", "groups": ["Engineering"]},
    "groups in another claim": {"sub": "u", "roles": ["engineering"]},
    "group names inside a text": {"sub": "u", "groups": "sales engineering"},
}


def test_valid_tokens_of_both_issuers_pass(client: httpx.Client, issuers: Issuers) -> None:
    for key in (RSA, EC, ED):
        assert send(client, sign(key, issuers.claims())).status_code == 200
    assert send(client, sign(OF_B, claims_of(issuers.b.url, sub="of-b"))).status_code == 200
    assert send(client, sign(RSA, issuers.claims(sub="u", groups=["engineering"]))).status_code == 200
    verified = issuers.claims(sub="u", email="Dev@example.com", email_verified=True)
    assert send(client, sign(RSA, verified)).status_code == 200


@pytest.mark.parametrize("forge", [pytest.param(forge, id=name) for name, forge in SIGNATURES.items()])
def test_forged_signature_or_header_is_a_401(
    client: httpx.Client, provider: ReplayProvider, issuers: Issuers, forge: Forge
) -> None:
    check(client, provider, 401, forge(issuers))


@pytest.mark.parametrize("changes", [pytest.param(changes, id=name) for name, changes in CLAIMS.items()])
def test_token_with_wrong_claims_is_a_401(
    client: httpx.Client, provider: ReplayProvider, issuers: Issuers, changes: dict[str, Any]
) -> None:
    check(client, provider, 401, sign(RSA, issuers.claims(**changes)))


@pytest.mark.parametrize("changes", [pytest.param(changes, id=name) for name, changes in NOT_ALLOWED.items()])
def test_valid_token_of_a_user_who_may_not_is_a_403(
    client: httpx.Client, provider: ReplayProvider, issuers: Issuers, changes: dict[str, Any]
) -> None:
    response = check(client, provider, 403, sign(RSA, issuers.claims(**changes)))

    challenge = 'Bearer error="insufficient_scope", scope="llm_proxy"'
    assert response.headers.get("WWW-Authenticate") == (challenge if {"scope", "scp"} & set(changes) else None)


def check(client: httpx.Client, provider: ReplayProvider, status: int, token: str, **how: Any) -> httpx.Response:
    """Send the token; check the status, the challenge of a 401, and that nothing reaches the provider."""
    before = len(provider.requests)

    response = send(client, token, **how)

    assert (response.status_code, len(provider.requests)) == (status, before), response.text
    assert response.json()["error"]["message"]
    assert not token or token not in response.text
    if status == 401:
        assert response.headers["WWW-Authenticate"] == "Bearer"
    return response


Place = Callable[[str], dict[str, Any]]

MISPLACED: dict[str, tuple[int, Place]] = {
    "in the query": (401, lambda t: {"headers": {"Authorization": None}, "params": {"access_token": t}}),
    "in the query too": (400, lambda t: {"params": {"access_token": t}}),
    "in a cookie": (401, lambda t: {"headers": {"Authorization": None, "Cookie": f"token={t}"}}),
    "in x-api-key of OpenAI's path": (401, lambda t: {"headers": {"Authorization": None, "x-api-key": t}}),
    "as Basic": (401, lambda t: {"headers": {"Authorization": f"Basic {t}"}}),
    "as DPoP": (401, lambda t: {"headers": {"Authorization": f"DPoP {t}"}}),
    "as Token": (401, lambda t: {"headers": {"Authorization": f"Token {t}"}}),
    "without a scheme": (401, lambda t: {"headers": {"Authorization": t}}),
    "in quotes": (401, lambda t: {"headers": {"Authorization": f'Bearer "{t}"'}}),
    "two in one header": (401, lambda t: {"headers": {"Authorization": f"Bearer {t},{t}"}}),
    "after two schemes": (401, lambda t: {"headers": {"Authorization": f"Bearer Bearer {t}"}}),
    "in a forwarded header too": (400, lambda t: {"headers": {"X-Stainless-Lang": t}}),
    "as the project": (403, lambda t: {"headers": {"Meshagent-Project-Id": t}}),
    "in the subprotocol of a plain request": (
        401,
        lambda t: {"headers": {"Authorization": None, "Sec-WebSocket-Protocol": f"openai-insecure-api-key.{t}"}},
    ),
    "beside a participant token": (
        401,
        lambda t: {"path": "/anthropic/v1/messages", "headers": {"x-api-key": mint()}},
    ),
}


@pytest.mark.parametrize(("status", "place"), [pytest.param(*case, id=name) for name, case in MISPLACED.items()])
def test_misplaced_token_is_refused(
    client: httpx.Client, provider: ReplayProvider, issuers: Issuers, status: int, place: Place
) -> None:
    token = sign(RSA, issuers.claims())
    check(client, provider, status, token, **place(token))


MALFORMED_PROJECTS: dict[str, tuple[int, str | list[str] | None]] = {
    "missing": (400, None),
    "empty": (400, ""),
    "a space inside": (403, "x y"),
    "twice": (400, [PROJECT, PROJECT]),
    "twice, two projects": (400, [PROJECT, OTHER_PROJECT]),
    "three times": (400, [PROJECT] * 3),
    "a list": (400, f"{PROJECT}, {PROJECT}"),
    "a list with an empty part": (400, f"{PROJECT},"),
    "of others": (403, OTHER_PROJECT),
    "unknown": (403, "00000000-0000-0000-0000-000000000000"),
    "a name": (403, "first"),
    "no UUID": (403, "x"),
    "without dashes": (403, PROJECT.replace("-", "")),
    "in braces": (403, f"{{{PROJECT}}}"),
    "in quotes": (403, f'"{PROJECT}"'),
    "with a prefix": (403, f"urn:uuid:{PROJECT}"),
    "cut": (403, PROJECT[:-1]),
    "longer": (403, PROJECT + "0"),
    "a pattern": (403, "*"),
    "a path": (403, "../" + PROJECT),
    "percent-encoded": (403, PROJECT.replace("-", "%2d")),
    "long": (403, "p" * 8000),
    "SQL": (403, f"{PROJECT}' OR '1'='1"),
    "bytes above ASCII": (403, "\u00e4"),
}


@pytest.mark.parametrize(
    ("status", "stated"), [pytest.param(*case, id=name) for name, case in MALFORMED_PROJECTS.items()]
)
def test_request_without_one_project_of_the_user_is_refused(
    client: httpx.Client, provider: ReplayProvider, issuers: Issuers, status: int, stated: str | list[str] | None
) -> None:
    values = stated if isinstance(stated, list) else [stated] if stated is not None else []
    headers = [("Authorization", f"Bearer {sign(RSA, issuers.claims())}")]
    headers += [("Meshagent-Project-Id", value.encode("latin-1")) for value in values]  # type: ignore[misc]
    before = len(provider.requests)

    response = client.post("/v1/chat/completions", json=CHAT, headers=headers)

    assert (response.status_code, len(provider.requests)) == (status, before)
    assert response.json()["error"]["code"] == ("project_required" if status == 400 else "not_allowed")


def test_project_in_upper_case_is_the_same_project(client: httpx.Client, issuers: Issuers) -> None:
    headers = {"Meshagent-Project-Id": PROJECT.upper()}

    assert send(client, sign(RSA, issuers.claims()), headers=headers).status_code == 200


def test_bad_token_without_a_project_is_a_401(client: httpx.Client, provider: ReplayProvider, issuers: Issuers) -> None:
    token = sign(RSA, issuers.claims(aud="other"))

    check(client, provider, 401, token, headers={"Meshagent-Project-Id": None})


def test_unknown_project_and_one_of_others_give_the_same_response(client: httpx.Client, issuers: Issuers) -> None:
    token = sign(RSA, issuers.claims())
    responses = [
        send(client, token, headers={"Meshagent-Project-Id": project})
        for project in (OTHER_PROJECT, "00000000-0000-0000-0000-000000000000")
    ]

    assert {response.status_code for response in responses} == {403}
    assert len({response.json()["error"]["message"] for response in responses}) == 1


HEADER = encode(json.dumps({"alg": "RS256", "kid": "rsa", "typ": "at+jwt"}).encode())


def payload(data: bytes) -> str:
    """Return a token with these bytes as its claims."""
    return f"{HEADER}.{encode(data)}.AAAA"


#: Texts in place of a token.  `{valid}` is a valid one.
MALFORMED_TOKENS: dict[str, str] = {
    "a dot": ".",
    "two dots": "..",
    "three dots": "...",
    "only a header": HEADER,
    "header and dot": HEADER + ".",
    "header and dots": HEADER + "..",
    "payload is missing": HEADER + "..AAAA",
    "five segments, as a JWE": "a.b.c.d.e",
    "a segment more": "{valid}.AAAA",
    "a dot in front": ".{valid}",
    "a space inside": "{valid} x",
    "two tokens": "{valid}.{valid}",
    "standard base64": HEADER + ".ab+/.AAAA",
    "padding": HEADER + ".e30=.AAAA",
    "signature with padding": "{valid}==",
    "signature is no base64": HEADER + ".e30.%%%",
    "percent-encoded": HEADER + "%2ee30%2eAAAA",
    "header is no JSON": encode(b"RS256") + ".e30.AAAA",
    "header is a list": encode(b'["RS256"]') + ".e30.AAAA",
    "header is text": encode(b'"RS256"') + ".e30.AAAA",
    "header is null": encode(b"null") + ".e30.AAAA",
    "header is cut": encode(b'{"alg":"RS256"') + ".e30.AAAA",
    "alg twice": encode(b'{"alg":"RS256","alg":"none","kid":"rsa"}') + ".e30.AAAA",
    "header with a byte order mark": encode(b'\xef\xbb\xbf{"alg":"RS256","kid":"rsa"}') + ".e30.AAAA",
    "header is UTF-16": encode('{"alg":"RS256"}'.encode("utf-16")) + ".e30.AAAA",
    "header is no UTF-8": encode(b'{"alg":"RS256","kid":"\xff"}') + ".e30.AAAA",
    "header is deep": encode(b"[" * 4000) + ".e30.AAAA",
    "payload is no JSON": payload(b"iss"),
    "payload is a list": payload(b"[]"),
    "payload is null": payload(b"null"),
    "payload is deep": payload(b"[" * 4000),
    "payload with NaN": payload(b'{"exp":NaN}'),
    "payload with Infinity": payload(b'{"exp":Infinity}'),
    "payload with sub twice": payload(b'{"sub":"a","sub":"b"}'),
    "a number of 10,000 digits": payload(b'{"exp":' + b"9" * 10_000 + b"}"),
    "too long": f"{HEADER}.{'A' * 16_384}.AAAA",
    "a UUID": PROJECT,
    "JSON": '{"alg":"none"}',
    "an opaque token where none are accepted": "Vt43t5AU1zqxmbJ-J5H6",
    "a provider key": OPENAI_KEY,
    "an access key that does not exist": "tp_" + "A" * 43,
    "a session key that does not exist": f"ek_{KEY_ID}.gAAAAA",
    "the bearer of a local proxy": "tpl_" + "A" * 43,
}


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in MALFORMED_TOKENS.items()])
def test_malformed_token_is_a_401(client: httpx.Client, provider: ReplayProvider, issuers: Issuers, text: str) -> None:
    check(client, provider, 401, text.replace("{valid}", sign(RSA, issuers.claims())))


def test_tables_have_the_promised_sizes() -> None:
    assert len(SIGNATURES) + len(CLAIMS) + len(NOT_ALLOWED) + len(MISPLACED) >= 80
    assert len(MALFORMED_PROJECTS) + len(MALFORMED_TOKENS) >= 60


def test_neither_an_attackers_url_nor_an_unknown_key_makes_the_proxy_ask_much(issuers: Issuers) -> None:
    # After all of the tests above: the first fetch of each issuer, and at most one a minute for unknown keys.
    assert issuers.b.count("/evil") == issuers.b.count("/evil.pem") == 0
    assert issuers.a.count("/jwks") <= 4
