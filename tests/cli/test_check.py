from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.harness import OPENAI_KEY, SECRETS, write_config
from tornado_proxy.cli import main

UPSTREAM = "https://api.example"


def check(config: Path, environment: dict[str, str] | None = None) -> Result:
    return CliRunner(env=SECRETS if environment is None else environment).invoke(
        main, ["check", "--config", str(config)]
    )


def write_prices(path: Path) -> Path:
    """Write a valid price file with one model and return its path."""
    path.write_text(
        "provider: openai\n"
        "models:\n"
        "  gpt-4o-mini:\n"
        "    status: active\n"
        "    endpoints: [/v1/chat/completions]\n"
        "    rates:\n"
        "      - unit: per_million_tokens\n"
        "        prices: {input_tokens: '0.15', output_tokens: '0.6'}\n"
        "        source: https://prices.example\n"
        "        checked: 2026-01-01\n"
    )
    return path


def test_valid_configuration_prints_a_one_line_summary(tmp_path: Path) -> None:
    prices = write_prices(tmp_path / "prices.yaml")
    config = write_config(tmp_path, UPSTREAM, pricing={"path": str(prices)})

    result = check(config)

    assert (result.stdout, result.stderr, result.exit_code) == (
        f"ok: {config}: anthropic (0 priced models), openai (1 priced model); 2 projects with 2 API keys\n",
        "",
        0,
    )


def test_each_fault_is_printed_on_its_own_line_without_secrets(tmp_path: Path) -> None:
    openai = {"base_url": UPSTREAM, "api_key": OPENAI_KEY}
    config = write_config(tmp_path, UPSTREAM, providers={"openai": openai}, listen={"port": -1}, extra=1)

    result = check(config, SECRETS | {"TEST_SIGNING_SECRET": ""})

    lines = result.stdout.splitlines()
    assert result.exit_code == 1
    assert [line.removeprefix(f"{config}:").split(": ")[1] for line in lines] == [
        "listen.port",
        "providers.openai.api_key",
        "projects[0].api_keys[0].secret",
        "extra",
    ]
    assert lines[0] == f"{config}:2: listen.port: must be an integer from 0 to 65535, not -1"
    assert not any(secret in result.output for secret in SECRETS.values())


def test_faults_of_the_price_rules_are_printed_with_the_others(tmp_path: Path) -> None:
    prices = tmp_path / "prices"
    prices.mkdir()
    for name in ("a.yaml", "b.yaml"):
        write_prices(prices / name)
    config = write_config(tmp_path, UPSTREAM, pricing={"path": "prices"}, extra=1)

    lines = check(config).stdout.splitlines()

    assert [line.replace(f"{tmp_path}/", "").split(": ")[0] for line in lines] == ["prices/b.yaml:1", "proxy.yaml:37"]


def test_secret_file_readable_by_all_is_a_warning(tmp_path: Path) -> None:
    key = tmp_path / "openai.key"
    key.write_text(OPENAI_KEY)
    key.chmod(0o644)
    config = write_config(
        tmp_path, UPSTREAM, providers={"openai": {"base_url": UPSTREAM, "api_key": {"file": "openai.key"}}}
    )

    result = check(config)

    assert result.exit_code == 0
    assert result.stderr.startswith(f"warning: {config}:")
    assert result.stderr.endswith(
        "providers.openai.api_key.file: the file is readable by every user of this machine; run chmod o-r on it\n"
    )


def test_missing_configuration_is_a_fault(tmp_path: Path) -> None:
    result = check(tmp_path / "none.yaml")

    assert result.stdout == f"{tmp_path}/none.yaml: does not exist; create it or name another file\n"
    assert result.exit_code == 1


def test_help_shows_an_example() -> None:
    result = CliRunner().invoke(main, ["check", "--help"])

    assert "tornado-proxy check --config conf/proxy.yaml" in result.output
    assert result.exit_code == 0


@pytest.mark.parametrize("arguments", [["check", "--no-such-option"], ["check", "proxy.yaml"]])
def test_invalid_command_line_exits_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, arguments).exit_code == 2
