"""The section `oauth`: its values, and each fault with its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.harness import PROJECT, SECRETS, write_config
from tornado_proxy.config.loading import load_settings
from tornado_proxy.domain.config.loopback import is_loopback, is_secure_url
from tornado_proxy.domain.config.oauth import IntrospectionEndpoint, KeySource, LoginClient, OAuthIssuer
from tornado_proxy.domain.errors import ConfigError
from tornado_proxy.domain.identity import Secret

A = {"issuer": "https://a.example.com", "audience": "llm-proxy", "clients": ["cli"]}
B = {**A, "issuer": "https://b.example.com"}
INTROSPECTION = {"url": "https://a.example.com/i", "client_id": "proxy", "client_secret": {"env": "TEST_IDP_SECRET"}}


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SECRETS, "TEST_IDP_SECRET": "s3cret"}.items():
        monkeypatch.setenv(name, value)


def load(
    folder: Path, *issuers: dict[str, Any], members: list[dict[str, Any]] | None = None
) -> tuple[OAuthIssuer, ...]:
    projects = [{"id": PROJECT, "name": "first", "members": members or []}]
    path = write_config(folder, "http://127.0.0.1:1", oauth=list(issuers), projects=projects)
    return load_settings(path).settings.oauth


def find_faults(folder: Path, *issuers: dict[str, Any], members: list[dict[str, Any]] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(folder, *issuers, members=members)
    assert all(fault.line > 0 for fault in raised.value.faults)
    return [f"{fault.key}: {fault.rule}" for fault in raised.value.faults]


def test_no_issuer_by_default(tmp_path: Path) -> None:
    assert load(tmp_path) == ()


def test_small_entry_has_defaults(tmp_path: Path) -> None:
    (issuer,) = load(tmp_path, A)

    assert issuer == OAuthIssuer(
        KeySource("https://a.example.com", None, 86_400, None), "llm-proxy", frozenset({"cli"}), "llm_proxy"
    )


def test_every_member_is_read(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")
    entry = {
        **A,
        "jwks_uri": "http://127.0.0.1:9/jwks",
        "scope": "use",
        "introspection": INTROSPECTION,
        "trust_email": True,
        "groups_claim": "https://example.com/groups",
        "login": {"client_id": "cli"},
        "jwks_max_stale_s": 3600,
        "ca_file": "ca.pem",
    }

    ca_file = str(tmp_path / "ca.pem")
    assert load(tmp_path, entry) == (
        OAuthIssuer(
            KeySource("https://a.example.com", "http://127.0.0.1:9/jwks", 3600, ca_file),
            "llm-proxy",
            frozenset({"cli"}),
            "use",
            IntrospectionEndpoint("https://a.example.com/i", "proxy", Secret("s3cret"), ca_file),
            True,
            "https://example.com/groups",
            LoginClient("cli", ("openid", "offline_access", "use")),
        ),
    )


@pytest.mark.parametrize(
    ("issuers", "faults"),
    [
        pytest.param(
            [A, {**B, "issuer": A["issuer"]}],
            ["oauth[1].issuer: is already the issuer of another entry; remove one"],
            id="one issuer twice",
        ),
        pytest.param(
            [{**A, "introspection": INTROSPECTION}, {**B, "introspection": INTROSPECTION}],
            [
                "oauth[1].introspection: oauth[0] introspects already; an opaque token does not say whose it is, "
                "and must not be shown to the wrong issuer"
            ],
            id="two issuers introspect",
        ),
        *(
            pytest.param(
                [entry],
                [f"{key}: must be an https URL without credentials; http is for this machine only"],
                id=f"{key} {shown}",
            )
            for key, shown, entry in (
                ("oauth[0].issuer", "http", {**A, "issuer": "http://a.example.com"}),
                ("oauth[0].issuer", "no URL", {**A, "issuer": "a.example.com"}),
                ("oauth[0].issuer", "space", {**A, "issuer": "https://a.example.com/ x"}),
                ("oauth[0].issuer", "private network", {**A, "issuer": "http://10.0.0.1"}),
                ("oauth[0].jwks_uri", "http", {**A, "jwks_uri": "http://a.example.com/jwks"}),
                ("oauth[0].jwks_uri", "file", {**A, "jwks_uri": "file:///jwks"}),
                ("oauth[0].jwks_uri", "password", {**A, "jwks_uri": "https://u:p@a.example.com/jwks"}),
                (
                    "oauth[0].introspection.url",
                    "http",
                    {**A, "introspection": {**INTROSPECTION, "url": "http://a.example.com/i"}},
                ),
            )
        ),
        pytest.param(
            [{**A, "issuer": "https://a.example.com?x=1"}],
            ["oauth[0].issuer: must have no query and no fragment (RFC 8414 section 2)"],
            id="issuer with a query",
        ),
        pytest.param(
            [{**A, "audience": "cli"}],
            [
                "oauth[0].audience: is one of clients, so ID tokens of that client would have it; "
                "let the issuer use another audience"
            ],
            id="audience is a client",
        ),
        pytest.param(
            [{**A, "clients": ["*", "cli"]}],
            ["oauth[0].clients: * accepts every client; remove the others, or *"],
            id="every client and one",
        ),
        pytest.param(
            [{**A, "login": {"client_id": "other"}}],
            ["oauth[0].login.client_id: is not one of clients, so its access tokens would be refused; add it there"],
            id="login client is not registered",
        ),
        pytest.param(
            [{**A, "introspection": {**INTROSPECTION, "client_secret": {"env": "TEST_MISSING"}}}],
            ["oauth[0].introspection.client_secret: environment variable TEST_MISSING is not set"],
            id="secret is missing",
        ),
        pytest.param([{**A, "clients": []}], ["oauth[0].clients: must have at least 1 item"], id="no client"),
        pytest.param(
            [{"issuer": A["issuer"]}],
            ["oauth[0].audience: is required", "oauth[0].clients: is required"],
            id="required",
        ),
        pytest.param(
            [{**A, "scope": "a b"}],
            ["oauth[0].scope: must be one scope without spaces and quotes, not 'a b'"],
            id="two scopes",
        ),
        pytest.param(
            [{**A, "jwks_max_stale_s": 1}],
            ["oauth[0].jwks_max_stale_s: must be an integer from 60 to 604800, not 1"],
            id="stale keys for a second",
        ),
    ],
)
def test_fault_names_the_key_and_the_rule(tmp_path: Path, issuers: list[dict[str, Any]], faults: list[str]) -> None:
    assert find_faults(tmp_path, *issuers) == faults


MEMBER = "projects[0].members[0]"


@pytest.mark.parametrize(
    ("issuers", "member", "fault"),
    [
        pytest.param(
            [A, B],
            {"user": "7"},
            f"{MEMBER}.issuer: is required, because oauth in proxy.yaml has several issuers",
            id="two issuers, member without one",
        ),
        pytest.param(
            [A],
            {"user": "7", "issuer": "https://a.example.com/"},
            f"{MEMBER}.issuer: is not an issuer of oauth in proxy.yaml; add it there, or write it exactly as there",
            id="issuer with another slash",
        ),
        pytest.param(
            [A], {"user": "7", "group": "g"}, f"{MEMBER}: has a user and a group; write two entries", id="both"
        ),
    ],
)
def test_fault_of_a_member(tmp_path: Path, issuers: list[dict[str, Any]], member: dict[str, Any], fault: str) -> None:
    assert find_faults(tmp_path, *issuers, members=[member]) == [fault]


def test_members_of_two_issuers_load(tmp_path: Path) -> None:
    assert len(load(tmp_path, A, B, members=[{"user": "7", "issuer": B["issuer"]}])) == 2


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_addresses(host: str) -> None:
    assert is_loopback(host)
    assert is_secure_url(f"http://{f'[{host}]' if ':' in host else host}:80/x")


@pytest.mark.parametrize("host", ["localhost.example.com", "10.0.0.1", "0.0.0.0", "::", "127.1", "2130706433", ""])  # noqa: S104
def test_other_addresses_are_no_loopback(host: str) -> None:
    assert not is_loopback(host)
