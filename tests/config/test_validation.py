from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from tests.config.conftest import document
from tornado_proxy.config.files import read_document
from tornado_proxy.config.validation import check

PROVIDER = {"base_url": "https://api.openai.com", "api_key": {"env": "KEY"}}
SMALL = {"providers": {"openai": PROVIDER}, "projects": []}
PROJECT = {"id": "0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10", "name": "first"}
REFERENCE = "must be a reference to a secret, {env: NAME} or {file: PATH}"
HIDDEN = "the present value (hidden: it could be a secret)"


def check_proxy(**members: object) -> list[str]:
    return [f"{fault.key}: {fault.rule}" for fault in check(document({**SMALL, **members}), "proxy")]


def check_project(**members: object) -> list[str]:
    found = check(document({"projects": [{**PROJECT, **members}]}), "projects")
    return [f"{fault.key.removeprefix('projects[0].')}: {fault.rule}" for fault in found]


def test_valid_document_has_no_fault() -> None:
    assert check_proxy() == []
    assert check_project() == []


@pytest.mark.parametrize(
    ("members", "faults"),
    [
        pytest.param(
            {"lsten": {}}, ['lsten: unknown key "lsten"; did you mean "listen"?'], id="unknown key, a near one"
        ),
        pytest.param(
            {"listen": {"x": 1}},
            ['listen.x: unknown key "x"; known keys are host, port, reuse_port, tls, public_url, trusted_proxies'],
            id="unknown key, none near",
        ),
        pytest.param(
            {"listen": {"port": -1}}, ["listen.port: must be an integer from 0 to 65535, not -1"], id="minimum"
        ),
        pytest.param(
            {"listen": {"port": 65536}}, ["listen.port: must be an integer from 0 to 65535, not 65536"], id="maximum"
        ),
        pytest.param(
            {"listen": {"port": "80"}}, ["listen.port: must be an integer from 0 to 65535, not '80'"], id="type"
        ),
        pytest.param(
            {"listen": {"port": Decimal("1.5")}},
            ["listen.port: must be an integer from 0 to 65535, not 1.5"],
            id="fraction",
        ),
        pytest.param(
            {"listen": {"port": True}},
            ["listen.port: must be an integer from 0 to 65535, not true"],
            id="boolean",
        ),
        pytest.param({"listen": None}, ["listen: must be a mapping, not empty"], id="empty section"),
        pytest.param({"listen": {"host": ""}}, ["listen.host: must not be empty"], id="empty text"),
        pytest.param({"providers": {}}, ["providers: must have at least 1 key"], id="no provider"),
        pytest.param(
            {"providers": {"opnai": PROVIDER}},
            ['providers.opnai: unknown key "opnai"; did you mean "openai"?'],
            id="unknown provider, a near one",
        ),
        pytest.param(
            {"providers": {"Mistral AI": PROVIDER}},
            ['providers.Mistral AI: unknown key "Mistral AI"; known keys are openai, anthropic'],
            id="unknown provider, none near",
        ),
        pytest.param({"models_list": "all"}, ["models_list: must be one of filtered, provider, not 'all'"], id="enum"),
        pytest.param({"models_list": 5}, ["models_list: must be text, not 5"], id="a wrong type is one fault"),
        pytest.param({"projects": 5}, ["projects: must be a path or a list of projects, not 5"], id="no alternative"),
        pytest.param({"projects": ""}, ["projects: must not be empty"], id="closest alternative"),
        pytest.param(
            {"projects": ["x"]}, ["projects[0]: must be a mapping, not 'x'"], id="closest alternative, nested"
        ),
        pytest.param({"forward_headers": ["a", "a"]}, ["forward_headers: must not contain an item twice"], id="twice"),
        pytest.param(
            {"forward_headers": ["a b"]}, ["forward_headers[0]: must be a header name, not 'a b'"], id="pattern"
        ),
        pytest.param(
            {"forward_headers": ["a\n"]}, ["forward_headers[0]: must be a header name, not 'a\\n'"], id="line end"
        ),
        pytest.param(
            {"pricing": {"surcharge_rate": Decimal("0.05")}},
            ['pricing.surcharge_rate: must be a quoted decimal, such as "0.05", not 0.05'],
            id="unquoted money",
        ),
        pytest.param(
            {"pricing": {"surcharge_rate": "10.01"}},
            [
                "pricing.surcharge_rate: must be a quoted decimal fraction between 0 and 10, "
                "such as \"0.05\", not '10.01'"
            ],
            id="more than ten times the charge",
        ),
        pytest.param(
            {"ledger": {"url": "mysql://db/ledger"}},
            [
                "ledger.url: must be an SQLite or PostgreSQL URL without a password, such as "
                "sqlite:///../var/ledger.db or postgresql://proxy@db.example.com/ledger, not 'mysql://db/ledger'"
            ],
            id="another database",
        ),
        pytest.param({"saml": []}, None, id="unsupported section"),
    ],
)
def test_fault_names_the_rule_and_the_value(members: dict[str, object], faults: list[str] | None) -> None:
    found = check_proxy(**members)

    assert found == faults if faults is not None else found[0].startswith("saml: unknown key")


def test_each_missing_key_is_one_fault() -> None:
    found = check(document({}), "proxy")

    assert [str(fault) for fault in found] == ["made.yaml: projects: is required", "made.yaml: providers: is required"]


def test_document_that_is_not_a_mapping_is_a_fault() -> None:
    assert [str(fault) for fault in check(document(["a"]), "proxy")] == ["made.yaml: must be a mapping, not a list"]


@pytest.mark.parametrize("value", [Decimal("0.1"), Decimal("10.0"), 1])
def test_decimals_are_numbers_and_limits_are_exact(value: object) -> None:
    assert check_proxy(streams={"connect_timeout_s": value}) == []


@pytest.mark.parametrize("rate", ["0", "0.05", "9.999999", "10", "10.00"])
def test_surcharge_rate_from_0_to_10_is_valid(rate: str) -> None:
    assert check_proxy(pricing={"surcharge_rate": rate}) == []


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///ledger.db",
        "sqlite:///../var/ledger.db",
        "sqlite:////var/lib/ledger.db",
        "sqlite:///.ledger",
        "sqlite:///var/...",
        "postgresql://proxy@db.example.com:5432/ledger?sslmode=verify-full",
        "postgresql://first.example.com,second.example.com/ledger?target_session_attrs=read-write",
        "postgresql:///ledger?host=/var/run/postgresql",
        "postgres://db/ledger",
    ],
)
def test_valid_ledger_url(url: str) -> None:
    assert check_proxy(ledger={"url": url}) == []


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://x",
        "sqlite:///",
        "sqlite:///.",
        "sqlite:///..",
        "sqlite:///../var/..",
        "sqlite:////var/lib/.",
        "sqlite:///a?mode=ro",
        "sqlite:///a/",
        "ledger.db",
        "postgresql://proxy:pw@db/ledger",
        "postgresql://proxy:@db/ledger",
        "postgresql://proxy@db/ledger?password=pw",
        "postgresql://proxy@db/ledger?sslmode=require&password=pw",
        "postgresql://proxy@db/led ger",
    ],
)
def test_invalid_ledger_url(url: str) -> None:
    assert len(check_proxy(ledger={"url": url})) == 1


@pytest.mark.parametrize(
    ("members", "faults"),
    [
        pytest.param({"id": "X"}, ["id: must be a UUID in lower case, not 'X'"], id="not a UUID"),
        pytest.param(
            {"id": PROJECT["id"].upper()}, [f"id: must be a UUID in lower case, not {HIDDEN}"], id="a UUID in capitals"
        ),
        pytest.param(
            {"models": ["opnai/x"]},
            ["models[0]: must start with * or a provider (openai, anthropic), not 'opnai/x'"],
            id="unknown provider in a pattern",
        ),
        pytest.param(
            {"models": ["gpt-5*"]},
            ["models[0]: must be a pattern of the form provider/model, not 'gpt-5*'"],
            id="pattern without a provider",
        ),
        pytest.param(
            {"providers": {"opnai": {"api_key": {"env": "KEY"}}}},
            ['providers.opnai: unknown key "opnai"; did you mean "openai"?'],
            id="unknown provider",
        ),
        pytest.param(
            {"members": [{"user": "a", "permissions": ["can_fly"]}]},
            ["members[0].permissions[0]: must be one of can_use_llm_proxy, llm_proxy_user, not 'can_fly'"],
            id="unknown permission",
        ),
        pytest.param({"members": [{"admin": True}]}, ["members[0].user: is required"], id="member without a name"),
    ],
)
def test_fault_of_a_project_names_the_rule_and_the_value(members: dict[str, object], faults: list[str]) -> None:
    assert check_project(**members) == faults


@pytest.mark.parametrize("pattern", ["*", "*/gpt-5", "openai/*", "anthropic/claude-*", "openai/ft:gpt-4o:acme::x"])
def test_valid_model_pattern(pattern: str) -> None:
    assert check_project(models=[pattern]) == []


SECRET = "sk-proj-Zx81LqPw"


@pytest.mark.parametrize(
    ("reference", "rule"),
    [
        pytest.param(SECRET, f"{REFERENCE}, not {HIDDEN}", id="a literal"),
        pytest.param(12345678, f"{REFERENCE}, not {HIDDEN}", id="a number"),
        pytest.param([SECRET], f"{REFERENCE}, not {HIDDEN}", id="a list"),
        pytest.param(
            {SECRET: None}, "unknown key (hidden: it could be a secret); known keys are env, file", id="a key"
        ),
        pytest.param({"env": SECRET}, f"must be the name of an environment variable, not {HIDDEN}", id="not a name"),
        pytest.param({"file": 5}, f"must be text, not {HIDDEN}", id="not a path"),
        pytest.param({}, "must have at least 1 key", id="empty"),
        pytest.param({"env": "A", "file": "b"}, "must have at most 1 key", id="both"),
    ],
)
def test_fault_of_a_reference_does_not_repeat_the_value(reference: object, rule: str) -> None:
    (fault,) = check_proxy(providers={"openai": {**PROVIDER, "api_key": reference}})

    assert fault.split(": ", 1)[1] == rule
    assert fault.startswith("providers.openai.api_key")


@pytest.mark.parametrize(
    "secret",
    [
        SECRET,
        "ma-eX1RyC0eQ0-secret",
        "postgres://user:password1@db/ledger",
        "-----BEGIN PRIVATE KEY-----",
        "q1w2e3r4t5z6u7i8o9p0a1s2d3f4",
    ],
)
def test_secret_in_a_wrong_place_is_not_shown(secret: str) -> None:
    faults = check_proxy(
        models_list=secret,
        ledger={"url": secret, secret: 1},
        apikey=secret,
        forward_headers=[secret + " "],
        limits=secret,
        **{"x " + secret: 1},
    )

    assert len(faults) == 7
    assert secret not in "".join(faults)


def test_long_value_is_truncated() -> None:
    assert check_proxy(models_list="ab " * 100) == [
        f"models_list: must be one of filtered, provider, not '{'ab ' * 20}...'"
    ]


def test_faults_are_in_file_order_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_text(
        "listen:\n"
        "  prt: 1\n"
        "  host: 5\n"
        "providers:\n"
        "  openai:\n"
        "    base_url: https://api.openai.com\n"
        "streams: {drain_max: 1.5,\n"
        "  idle_timeout_s: 0}\n"
    )

    faults = [str(fault).removeprefix(f"{path}:") for fault in check(read_document(path), "proxy")]

    assert faults == [
        "1: projects: is required",
        '2: listen.prt: unknown key "prt"; did you mean "port"?',
        "3: listen.host: must be text, not 5",
        "5: providers.openai.api_key: is required",
        "7: streams.drain_max: must be an integer from 0 to 1000000, not 1.5",
        "8: streams.idle_timeout_s: must be a number from 1 to 86400, not 0",
    ]


def test_fault_of_a_price_file_names_the_rule_and_the_value(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("provider: opnai\naliases:\n  a: 5\n")

    faults = [str(fault).removeprefix(f"{path}:") for fault in check(read_document(path), "prices")]

    assert faults == [
        "1: models: is required",
        "1: provider: must be one of openai, anthropic, not 'opnai'",
        "3: aliases.a: must be text, not 5",
    ]
