"""The price commands on small price files and excerpts of lists, and on the bundled price files."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.cli.rated_ledger import run
from tests.harness import ROOT

LISTS = ROOT / "tests" / "fixtures" / "price_lists"
TODAY = datetime.now(UTC).date()

PRICES = """\
provider: openai
service_tiers: {default: standard, flex: flex, batch: batch}
aliases: {gpt-5.4-2026-03-05: gpt-5.4}
shared_rates:
  tools:
    - when: {tool: web_search}
      unit: per_thousand_calls
      prices: {web_searches: "10"}
      source: a page
      checked: 2026-11-01
    - unit: per_thousand_calls
      prices: {file_searches: "3"}
      source: a page
      checked: 2026-11-01
models:
  # The workhorse.
  gpt-5.4:
    status: active
    endpoints: [/v1/chat/completions, /v1/responses]
    includes: [tools]
    rates:
      - when: {service_tier: standard, input_tokens: {up_to: 272000}}
        unit: per_million_tokens
        prices: {input_tokens: "2", cached_input_tokens: "0.25", output_tokens: "15"}
        source: a page
        checked: 2026-11-01
      - when: {service_tier: standard, input_tokens: {over: 272000}}
        unit: per_million_tokens
        prices: {input_tokens: "5", cached_input_tokens: "0.5", output_tokens: "22.5"}
        source: a page
        checked: 2026-11-01
      - when: {service_tier: batch}
        unit: per_million_tokens
        prices: {input_tokens: "1.25", output_tokens: "7.5"}
        source: a page
        checked: 2026-11-01
  whisper-1:
    status: active
    endpoints: [/v1/audio/transcriptions]
    rates:
      - unit: per_minute
        prices: {audio_seconds: "0.006"}
        source: a page
        checked: 2026-11-01
"""

#: Lines of a card.
TOKENS = "        unit: per_million_tokens\n"
SOURCE = "        source: a page\n        checked: 2026-11-01\n"
LITELLM = f'        source: "LiteLLM price map (litellm.json)"\n        checked: {TODAY}\n'


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "openai.yaml"
    path.write_text(PRICES)
    return path


def pricing(*arguments: Any, prices: Path) -> Result:
    return run("pricing", *arguments, "--prices", prices)


class TestList:
    def test_models_are_listed_with_standard_prices(self, prices: Path) -> None:
        lines = pricing("list", prices=prices).stdout.splitlines()

        assert [line.split("│")[2:7] for line in lines if "gpt" in line] == [
            [" gpt-5.4   ", " active ", "     2 ", "         0.25 ", "     15 "]
        ]
        assert [line.split("│")[-2].strip() for line in lines if "whisper" in line] == ["audio_seconds"]

    def test_pattern_status_and_provider_select_models(self, prices: Path) -> None:
        listed = [
            json.loads(pricing("list", *arguments, "--format", "json", prices=prices).stdout)
            for arguments in (["gpt*"], ["*", "--status", "retired"], ["--provider", "anthropic"])
        ]

        assert [[model["model"] for model in models] for models in listed] == [["gpt-5.4"], [], []]

    def test_json_has_every_card(self, prices: Path) -> None:
        (model,) = json.loads(pricing("list", "whisper-1", "--format", "json", prices=prices).stdout)

        assert model["cards"] == [
            {
                "when": "",
                "unit": "per_minute",
                "prices": {"audio_seconds": "0.006"},
                "effective_from": None,
                "effective_until": None,
                "source": "a page",
                "checked": "2026-11-01",
            }
        ]


class TestShow:
    @pytest.mark.parametrize("name", ["gpt-5.4", "gpt-5.4-2026-03-05", "openai/gpt-5.4"])
    def test_every_price_has_its_conditions_source_and_date(self, prices: Path, name: str) -> None:
        text = pricing("show", name, prices=prices).stdout

        assert text.startswith("openai/gpt-5.4: active\naliases: gpt-5.4-2026-03-05\n")
        assert (
            "\nservice_tier standard, input_tokens over 272000; USD per million tokens\n"
            "  input_tokens         5\n"
            "  cached_input_tokens  0.5\n"
            "  output_tokens        22.5\n"
            "  source: a page; checked 2026-11-01\n"
        ) in text

    def test_models_of_two_providers_with_one_name_are_one_json_document(self, prices: Path) -> None:
        (prices.parent / "anthropic.yaml").write_text(PRICES.replace("provider: openai", "provider: anthropic"))

        shown = json.loads(pricing("show", "gpt-5.4", "--format", "json", prices=prices.parent).stdout)

        assert sorted(model["provider"] for model in shown) == ["anthropic", "openai"]

    def test_unknown_model_exits_with_1_and_a_hint(self, prices: Path) -> None:
        result = pricing("show", "gpt-5.5", prices=prices)

        assert result.exit_code == 1
        assert "gpt-5.5 has no prices; did you mean gpt-5.4?" in result.stderr


class TestCheck:
    def test_valid_file_prints_a_summary(self, prices: Path) -> None:
        result = pricing("check", "--max-age", 100_000, prices=prices)

        # gpt-5.4 has three cards and two shared ones; whisper-1 has one.
        assert (result.exit_code, result.stdout) == (0, f"ok: {prices}: 2 models, 6 price cards\n")

    @pytest.mark.parametrize(
        ("old", "new", "fault"),
        [
            (
                'prices: {input_tokens: "2", cached_input_tokens: "0.25", output_tokens: "15"}',
                'prices: {input_tokens: "2", cached_input_tokens: "0.25"}',
                "/v1/chat/completions is refused: gpt-5.4 has no price for output_tokens",
            ),
            ("over: 272000", "over: 300000", "has no price on service_tier standard for 272001 input tokens"),
            (
                "status: active\n    endpoints: [/v1/audio",
                "status: active\n    shutdown_date: 2026-01-01\n    endpoints: [/v1/audio",
                "is active, but was shut down on 2026-01-01",
            ),
            (
                f'when: {{service_tier: batch}}\n{TOKENS}        prices: {{input_tokens: "1.25", output',
                f'when: {{service_tier: flex}}\n{TOKENS}        prices: {{input_tokens: "1.25", cached_input',
                "/v1/responses (service_tier flex) is refused: gpt-5.4 has no price for output_tokens",
            ),
        ],
    )
    def test_fault_is_printed_with_file_and_model(self, prices: Path, old: str, new: str, fault: str) -> None:
        assert PRICES.count(old) == 1
        prices.write_text(PRICES.replace(old, new))

        result = pricing("check", prices=prices)

        assert result.exit_code == 1
        assert any(line.startswith(f"{prices}:") and fault in line for line in result.stdout.splitlines())

    def test_ending_and_stale_prices_are_warnings(self, prices: Path) -> None:
        ends = TODAY + timedelta(days=30)
        old = TODAY - timedelta(days=200)
        text = PRICES.replace(
            f'prices: {{audio_seconds: "0.006"}}\n{SOURCE}',
            f'effective_until: {ends}\n        prices: {{audio_seconds: "0.006"}}\n{SOURCE}',
        )
        text = text[:-1].removesuffix("2026-11-01") + f"{old}\n"
        prices.write_text(text)

        result = pricing("check", prices=prices)

        assert result.exit_code == 0
        assert f"warning: {prices}:37: models.whisper-1: no price on all terms from {ends} on" in result.stderr
        assert f"was last checked on {old}" in result.stderr

    def test_tier_whose_prices_have_ended_is_a_warning(self, prices: Path) -> None:
        batch = f"when: {{service_tier: batch}}\n{TOKENS}"
        ended = "when: {service_tier: flex}\n        effective_until: 2026-01-01\n" + TOKENS
        prices.write_text(PRICES.replace(batch, ended, 1))

        result = pricing("check", "--max-age", 100_000, prices=prices)

        assert (result.exit_code, result.stdout.startswith("ok: ")) == (0, True)
        assert 'models."gpt-5.4": no price on service_tier flex from 2026-01-01 on for' in result.stderr

    def test_meter_without_a_price_on_one_tier_is_a_warning(self, prices: Path) -> None:
        result = pricing("check", "--max-age", 100_000, prices=prices)

        assert result.stderr == (
            f'warning: {prices}:17: models."gpt-5.4": no price on service_tier batch for cached_input_tokens, which '
            "the standard terms have a price for\n"
        )

    def test_fault_of_the_schema_is_printed_as_by_check(self, prices: Path) -> None:
        prices.write_text(PRICES.replace('"0.006"', "0.006"))

        result = pricing("check", prices=prices)

        assert result.exit_code == 1
        assert "openai.yaml:42: models.whisper-1.rates[0].prices.audio_seconds: must be text" in result.stderr


class TestDiff:
    def test_differences_are_printed_with_our_source(self, prices: Path) -> None:
        result = pricing("diff", LISTS / "litellm.json", "--model", "gpt-5.4", prices=prices)

        assert result.exit_code == 0
        assert result.stdout.startswith(
            "openai/gpt-5.4\n"
            "  input_tokens: ours 2, theirs 2.5 per million tokens\n"
            "    ours: a page; checked 2026-11-01\n"
            "  input_tokens (service_tier flex, input_tokens over 272000): ours none, theirs 2.5 per million tokens\n"
            "  cached_input_tokens (service_tier flex): ours none, theirs 0.13 per million tokens\n"
            "LiteLLM price map: 6 models, 18 prices: 5 agree, 1 differ, 2 we do not have, "
        )

    def test_prices_are_compared_as_charges(self, prices: Path) -> None:
        for name in ("litellm.json", "genai.json"):
            # 0.0001 a second and 0.36 an hour are 0.006 a minute.
            found = pricing("diff", LISTS / name, "--model", "whisper-1", "--format", "json", prices=prices)
            assert json.loads(found.stdout) == []

    def test_price_on_terms_that_the_list_does_not_have_is_not_missing(self, prices: Path) -> None:
        arguments = ("diff", LISTS / "genai.json", "--model", "gpt-5.4", "--format", "json")

        found = {row["meter"]: row for row in json.loads(pricing(*arguments, prices=prices).stdout) if not row["when"]}

        assert found["web_searches"]["finding"] == "on other terms"
        assert (found["file_searches"]["ours"], found["file_searches"]["theirs"]) == ("3", "2.5")

    def test_option_exit_code_returns_1_for_differences(self, prices: Path) -> None:
        arguments = ("diff", LISTS / "litellm.json", "--exit-code", "--model")

        assert pricing(*arguments, "gpt-5.4", prices=prices).exit_code == 1
        assert pricing(*arguments, "whisper-1", prices=prices).exit_code == 0

    def test_csv_has_a_row_per_difference(self, prices: Path) -> None:
        arguments = ("diff", LISTS / "litellm.json", "--only", "differs", "--format", "csv")

        (row,) = csv.DictReader(io.StringIO(pricing(*arguments, prices=prices).stdout))

        assert (row["model"], row["meter"], row["ours"], row["theirs"]) == ("gpt-5.4", "input_tokens", "2", "2.5")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b'{"a": 1}', "is no LiteLLM price map"),
            (b"a: [", "invalid YAML"),
            (b"\xff\xfe", "is not UTF-8 text"),
            (None, "cannot be read"),
        ],
    )
    def test_file_that_is_no_list_exits_with_1(
        self, tmp_path: Path, prices: Path, content: bytes | None, message: str
    ) -> None:
        file = tmp_path / "list.json"
        if content is not None:
            file.write_bytes(content)

        result = pricing("diff", file, prices=prices)

        assert result.exit_code == 1
        assert message in result.stderr


class TestImport:
    def test_import_without_write_shows_the_change_only(self, prices: Path) -> None:
        result = pricing("import", LISTS / "litellm.json", "--only", "differs", prices=prices)

        assert result.exit_code == 0
        assert '-        prices: {input_tokens: "2", cached_input' in result.stdout
        assert '+        prices: {input_tokens: "2.5", cached_input' in result.stdout
        assert result.stdout.endswith("nothing was written; --write writes it\n")
        assert prices.read_text() == PRICES

    def test_write_changes_only_the_selected_prices(self, prices: Path) -> None:
        arguments = ("import", LISTS / "litellm.json", "--only", "differs", "--model", "gpt-5.4", "--write")

        result = pricing(*arguments, prices=prices)

        assert result.exit_code == 0
        assert prices.read_text() == PRICES.replace('{input_tokens: "2",', '{input_tokens: "2.5",').replace(
            f"{SOURCE}      - when: {{service_tier: standard, input_tokens: {{over",
            f"{LITELLM}      - when: {{service_tier: standard, input_tokens: {{over",
        )
        again = pricing("diff", LISTS / "litellm.json", "--only", "differs", "--format", "json", prices=prices)
        assert json.loads(again.stdout) == []

    def test_card_that_the_list_covers_gets_its_source_and_today_s_date(self, prices: Path) -> None:
        arguments = ("import", LISTS / "genai.json", "--only", "differs", "--model", "gpt-5.4", "--write")

        pricing(*arguments, prices=prices)

        # The list covers the card below the limit, and lacks cached input above it.
        assert prices.read_text() == PRICES.replace('{input_tokens: "2",', '{input_tokens: "2.5",').replace(
            f"{SOURCE}      - when: {{service_tier: standard, input_tokens: {{over",
            f'        source: "genai-prices (genai.json)"\n        checked: {TODAY}\n'
            "      - when: {service_tier: standard, input_tokens: {over",
        )

    def test_card_that_the_list_covers_in_part_keeps_its_date_and_names_both_sources(self, prices: Path) -> None:
        prices.write_text(PRICES.replace('"5", cached_input', '"6", cached_input'))
        arguments = ("import", LISTS / "genai.json", "--only", "differs", "--model", "gpt-5.4", "--write")

        pricing(*arguments, prices=prices)

        both = (
            f'        source: "a page; input_tokens: genai-prices (genai.json), {TODAY}"\n        checked: 2026-11-01\n'
        )
        assert f'{{input_tokens: "5", cached_input_tokens: "0.5", output_tokens: "22.5"}}\n{both}' in prices.read_text()

    def test_price_with_a_start_date_keeps_the_old_price_until_then(self, prices: Path) -> None:
        arguments = ("import", LISTS / "litellm.json", "--only", "differs", "--model", "*", "--write")

        result = pricing(*arguments, "--effective-from", "2027-01-01", prices=prices)

        assert result.exit_code == 0
        cards = json.loads(pricing("show", "gpt-5.4", "--format", "json", prices=prices).stdout)["cards"]
        dated = [
            (card["prices"]["input_tokens"], card["effective_from"], card["effective_until"])
            for card in cards
            if card["when"] == "service_tier standard, input_tokens up to 272000"
        ]
        assert dated == [("2", None, "2027-01-01"), ("2.5", "2027-01-01", None)]

    def test_new_models_and_missing_prices_are_added(self, prices: Path) -> None:
        result = pricing("import", LISTS / "litellm.json", "--model", "*", "--write", prices=prices)

        assert result.exit_code == 0, result.stderr
        assert pricing("check", "--max-age", 100_000, prices=prices).exit_code == 1  # flex has no output price
        shown = pricing("show", "tts-1", prices=prices).stdout
        assert "openai/tts-1: active\nendpoints: /v1/audio/speech\n" in shown
        assert "  input_characters  15\n  source: LiteLLM price map (litellm.json)" in shown
        assert f'cached_input_tokens: "0.13"}}\n{LITELLM}' in prices.read_text()
        assert "# The workhorse." in prices.read_text()

    def test_price_that_cannot_be_written_is_named_with_the_reason(self, prices: Path) -> None:
        result = pricing("import", LISTS / "genai.json", "--model", "*", "--write", prices=prices)

        assert "not written: gpt-5.4 file_searches: the price is on a card that several models share" in result.stdout
        assert (
            "not written: gpt-5.4 web_searches: our price depends on more terms than the list distinguishes"
            in result.stdout
        )
        assert (
            "not written: gpt-dated input_tokens: the list does not name the endpoints that serve it" in result.stdout
        )
        assert 'file_searches: "3"' in prices.read_text()

    def test_option_endpoint_sets_endpoints_of_new_models(self, prices: Path) -> None:
        arguments = ("import", LISTS / "genai.json", "--model", "gpt-dated", "--endpoint", "/v1/responses", "--write")

        assert pricing(*arguments, prices=prices).exit_code == 0
        assert "endpoints: /v1/responses\n" in pricing("show", "gpt-dated", prices=prices).stdout

    def test_several_listed_prices_for_one_card_are_not_written(self, prices: Path) -> None:
        text = PRICES.replace("service_tier: standard, input_tokens: {up_to: 272000}", "service_tier: standard")
        start = text.index("      - when: {service_tier: standard, input_tokens: {over")
        prices.write_text(text[:start] + text[text.index("      - when: {service_tier: batch}") :])

        result = pricing("import", LISTS / "litellm.json", "--model", "gpt-5.4", "--only", "differs", prices=prices)

        assert result.stdout.count("the list has several prices where one card has one") == 2
        assert "nothing to write" in result.stdout

    def test_price_imported_for_a_day_is_not_imported_twice(self, prices: Path) -> None:
        arguments = ("import", LISTS / "litellm.json", "--only", "differs", "--model", "*", "--write")
        day = ("--effective-from", "2099-01-01")
        assert pricing(*arguments, *day, prices=prices).exit_code == 0
        before = prices.read_text()

        assert pricing(*arguments, *day, prices=prices).stdout.endswith("nothing to write\n")
        assert prices.read_text() == before

    def test_import_that_would_make_a_file_invalid_is_not_written(self, prices: Path) -> None:
        before = PRICES.replace("flex: flex, ", "")
        prices.write_text(before)

        result = pricing("import", LISTS / "litellm.json", "--model", "gpt-5.4", "--write", prices=prices)

        assert result.exit_code == 1
        assert "no entry of service_tiers leads to 'flex'" in result.stderr
        assert prices.read_text() == before

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--write",), "--write needs --model"),
            (("--endpoint", "/v1/nowhere"), "is no endpoint of the price files"),
            (("--effective-from", "tomorrow"), "does not match the format"),
        ],
    )
    def test_invalid_command_line_exits_with_2(self, prices: Path, arguments: tuple[str, ...], message: str) -> None:
        result = pricing("import", LISTS / "litellm.json", *arguments, prices=prices)

        assert (result.exit_code, message in result.stderr) == (2, True)
