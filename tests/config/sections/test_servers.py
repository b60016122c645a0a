from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.config.conftest import WriteConfig
from tornado_proxy.config.loading import load_settings, read_config

NOT_A_URL = "must be an http or https URL such as https://api.example.com"


def write_provider(base_url: str, more: str = "") -> str:
    return (
        f"providers:\n  openai: {{base_url: {base_url!r}, api_key: {{env: CONFIG_OPENAI_KEY}}{more}}}\nprojects: []\n"
    )


def find_faults(path: Path) -> list[str]:
    return [str(fault).replace(f"{path.parent}/", "") for fault in read_config(path).faults]


@pytest.mark.parametrize(
    ("written", "base_url"),
    [
        ("https://api.openai.com", "https://api.openai.com"),
        ("https://api.openai.com/", "https://api.openai.com"),
        ("https://api.openai.com/v1", "https://api.openai.com"),
        ("https://api.openai.com/v1/", "https://api.openai.com"),
        ("https://gateway.example/openai/v1", "https://gateway.example/openai"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("http://[::1]:9000/v1", "http://[::1]:9000"),
        ("https://gateway.example/v1/account/openai", "https://gateway.example/v1/account/openai"),
        ("https://api.openai.com/v11", "https://api.openai.com/v11"),
    ],
)
def test_base_url_is_the_part_before_v1(write: WriteConfig, written: str, base_url: str) -> None:
    assert load_settings(write(write_provider(written))).settings.providers["openai"].base_url == base_url


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        pytest.param("ftp://api.openai.com", NOT_A_URL, id="another scheme"),
        pytest.param("api.openai.com", NOT_A_URL, id="no scheme"),
        pytest.param("https://", NOT_A_URL, id="no host"),
        pytest.param("http://[::1", NOT_A_URL, id="invalid address"),
        pytest.param("https://api.openai.com:port", NOT_A_URL, id="invalid port"),
        pytest.param("https://api.openai.com:0", NOT_A_URL, id="port 0"),
        pytest.param("https://api.openai.com/a b", NOT_A_URL, id="a space"),
        pytest.param("https://äpi.example", NOT_A_URL, id="not ASCII"),
        pytest.param("https://api.openai.com?key=sk-1", "must have no query, fragment or credentials", id="query"),
        pytest.param("https://api.openai.com?", "must have no query, fragment or credentials", id="empty query"),
        pytest.param("https://api.openai.com/#a", "must have no query, fragment or credentials", id="fragment"),
        pytest.param(
            "https://api.anthropic.com/v1/messages",
            "must end before the path of an endpoint; remove /v1/messages",
            id="an endpoint",
        ),
        pytest.param(
            "https://gateway.example/v1/chat/completions/",
            "must end before the path of an endpoint; remove /v1/chat/completions",
            id="an endpoint of a gateway",
        ),
        pytest.param("https://me:pw@api.openai.com", "must have no query, fragment or credentials", id="credentials"),
    ],
)
def test_invalid_base_url_is_a_fault_that_does_not_repeat_it(write: WriteConfig, url: str, rule: str) -> None:
    assert find_faults(write(write_provider(url))) == [f"proxy.yaml:2: providers.openai.base_url: {rule}"]


def test_ca_file_is_relative_to_the_configuration(write: WriteConfig, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")

    settings = load_settings(write(write_provider("https://gateway.example", ", ca_file: ca.pem, region: eu"))).settings

    assert settings.providers["openai"].ca_file == f"{tmp_path}/ca.pem"
    assert settings.providers["openai"].region == "eu"


@pytest.mark.parametrize(
    ("name", "problem"),
    [("none.pem", "none.pem does not exist"), (".", " cannot be read: Is a directory")],
)
def test_unreadable_ca_file_is_a_fault(write: WriteConfig, name: str, problem: str) -> None:
    (fault,) = find_faults(write(write_provider("https://gateway.example", f", ca_file: {name}")))

    assert fault.startswith("proxy.yaml:2: providers.openai.ca_file: ")
    assert fault.endswith(problem)


def test_provider_that_is_not_a_mapping_is_one_fault(write: WriteConfig) -> None:
    assert find_faults(write("providers: {openai: x}\nprojects: []\n")) == [
        "proxy.yaml:1: providers.openai: must be a mapping, not 'x'"
    ]


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param("admin: {port: 8080}\n", id="the default client port"),
        pytest.param("listen: {port: 8081}\n", id="the default admin port"),
        pytest.param("listen: {port: 9000, host: 0.0.0.0}\nadmin: {port: 9000}\n", id="every address"),
    ],
)
def test_admin_port_must_differ_from_client_port(write: WriteConfig, lines: str) -> None:
    (fault,) = find_faults(write(write_provider("https://api.openai.com") + lines))

    assert re.search(r"admin: admin\.port must differ from listen\.port, which is \d+ too$", fault)


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param("listen: {port: 0}\nadmin: {port: 0}\n", id="free ports"),
        pytest.param("listen: {port: 9000, host: 10.0.0.1}\nadmin: {port: 9000}\n", id="other addresses"),
    ],
)
def test_same_port_on_another_address_is_valid(write: WriteConfig, lines: str) -> None:
    assert find_faults(write(write_provider("https://api.openai.com") + lines)) == []


def test_forward_headers_rejects_headers_that_are_never_forwarded(write: WriteConfig) -> None:
    lines = "forward_headers:\n  - X-Team\n  - Authorization\n  - connection\n"

    assert find_faults(write(write_provider("https://api.openai.com") + lines)) == [
        "proxy.yaml:6: forward_headers[1]: Authorization is never forwarded to a provider; remove it",
        "proxy.yaml:7: forward_headers[2]: connection is never forwarded to a provider; remove it",
    ]


def test_folder_is_no_ledger(write: WriteConfig, tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()

    faults = find_faults(write(write_provider("https://api.openai.com") + "ledger: {url: sqlite:///var}\n"))

    assert faults == ["proxy.yaml:4: ledger.url: var is a folder; name a file in it, such as ledger.db"]


@pytest.mark.parametrize(
    ("section", "fault"),
    [
        pytest.param("listen: {public_url: llm.example.com}", f"listen.public_url: {NOT_A_URL}", id="no URL"),
        pytest.param(
            "listen: {public_url: 'https://x.example/?a'}",
            "listen.public_url: must have no query, fragment or credentials",
            id="query",
        ),
        pytest.param(
            "listen: {trusted_proxies: ['10.0.0.1/8']}",
            "listen.trusted_proxies[0]: '10.0.0.1/8' is not a network such as 10.0.0.0/8, or an address; write it "
            "without host bits",
            id="host bits",
        ),
        pytest.param(
            "cors: {allow_origins: ['https://app.example.com', '*']}",
            "cors.allow_origins[1]: '*' is not an origin such as https://app.example.com (lower case, no path, no *)",
            id="every origin",
        ),
        pytest.param(
            "cors: {allow_origins: ['https://app.example.com/']}",
            "cors.allow_origins[0]: 'https://app.example.com/' is not an origin such as https://app.example.com "
            "(lower case, no path, no *)",
            id="a path",
        ),
    ],
)
def test_invalid_public_address_or_origin_is_a_fault(write: WriteConfig, section: str, fault: str) -> None:
    content = f"{section}\n{write_provider('https://api.openai.com')}"

    assert find_faults(write(content)) == [f"proxy.yaml:1: {fault}"]
