from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml
from click.testing import CliRunner, Result

from tests.auth.tokens import hash_token
from tests.harness import write_config
from tornado_proxy.auth.api_key import format_api_key, parse_api_key
from tornado_proxy.cli import main
from tornado_proxy.domain.identity import ApiKey, Secret

PROJECT_ID = "0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10"
SECRET = "signing-secret-of-the-first-project-0123456789"
KEY = ApiKey("7d0e8a72-0c55-4c0f-9a5b-7f1f1f0f2a11", PROJECT_ID, Secret(SECRET))
WRITTEN = format_api_key(KEY).reveal()

SPEC = """\
version: v1
kind: ParticipantToken
identity: ada
room: lab
role: agent
api:
  llm: {models: ["openai/*"]}
  queues: {send: [a]}
  admin: null
"""

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs a command in `tmp_path`, with the API key in the variable KEY and in key.txt."""
    (tmp_path / "key.txt").write_text(WRITTEN + "\n")
    (tmp_path / "spec.yaml").write_text(SPEC)

    def run(*arguments: str, stdin: str = "", **environment: str) -> Result:
        files = ("key.txt", "spec.yaml", "new.key")
        resolved = [str(tmp_path / argument) if argument in files else argument for argument in arguments]
        result = CliRunner().invoke(main, resolved, input=stdin, env={"KEY": WRITTEN, **environment})
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return run


def claims_of(token: str) -> Any:
    return jwt.decode(token.strip(), SECRET, algorithms=["HS256"])


def mint(run: Run, *arguments: str) -> str:
    result = run("token", "mint", "--key-env", "KEY", *arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


class TestKeyCreate:
    def test_key_and_server_lines_contain_the_same_secret(self, run: Run) -> None:
        result = run("key", "create", "--project", PROJECT_ID, "--env", "ACME_KEY")

        assert result.exit_code == 0
        key = parse_api_key(next(line for line in result.stdout.splitlines() if line.startswith("ma-")))
        assert key.project_id == PROJECT_ID
        assert f"ACME_KEY={key.secret.reveal()}" in result.stdout.splitlines()
        lines = yaml.safe_load(result.stdout[result.stdout.index("    api_keys:") :])
        assert lines == {"api_keys": [{"id": key.id, "secret": {"env": "ACME_KEY"}}]}

    def test_comments_say_which_lines_are_secret(self, run: Run) -> None:
        lines = run("key", "create", "--project", PROJECT_ID).stdout.splitlines()

        comments = {lines[number + 1][:3]: line for number, line in enumerate(lines) if line.startswith("#")}
        assert "a secret" in comments["ma-"]
        assert "for the server alone" in comments["PRO"]
        assert "Not secret" in comments["   "]

    def test_secret_is_written_to_a_file_that_only_its_owner_can_read(self, run: Run, tmp_path: Path) -> None:
        result = run("key", "create", "--project", PROJECT_ID, "--file", "new.key")

        file = tmp_path / "new.key"
        key = parse_api_key(next(line for line in result.stdout.splitlines() if line.startswith("ma-")))
        assert file.read_text() == key.secret.reveal() + "\n"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert result.stdout.count(key.secret.reveal()) == 1
        lines = yaml.safe_load(result.stdout[result.stdout.index("    api_keys:") :])
        assert lines["api_keys"][0]["secret"] == {"file": str(file)}

    def test_existing_file_is_not_overwritten(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "new.key").write_text("a key in use")

        result = run("key", "create", "--project", PROJECT_ID, "--file", "new.key")

        assert (result.exit_code, result.stdout) == (1, "")
        assert (tmp_path / "new.key").read_text() == "a key in use"

    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["--project", "acme"],
            ["--project", PROJECT_ID, "--env", "a b"],
            ["--project", PROJECT_ID, "--env", "A", "--file", "new.key"],
        ],
    )
    def test_invalid_command_line_exits_with_2(self, run: Run, arguments: list[str]) -> None:
        result = run("key", "create", *arguments)

        assert (result.exit_code, result.stdout) == (2, "")


class TestTokenMint:
    def test_spec_file_is_minted_as_a_token(self, run: Run) -> None:
        result = run("token", "mint", "--key-file", "key.txt", "spec.yaml", "--expires-in", "1h")

        assert result.exit_code == 0
        assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", result.stdout)
        claims = claims_of(result.stdout)
        assert claims["name"] == "ada"
        assert (claims["sub"], claims["kid"]) == (PROJECT_ID, KEY.id)
        assert claims["grants"] == [
            {"name": "room", "scope": "lab"},
            {"name": "role", "scope": "agent"},
            {"name": "api", "scope": {"llm": {"models": ["openai/*"]}, "queues": {"send": ["a"]}}},
        ]
        assert abs(claims["exp"] - datetime.now(UTC).timestamp() - 3600) < 60

    def test_options_replace_a_spec_file(self, run: Run) -> None:
        token = mint(run, "--identity", "ada", "--room", "lab", "--role", "tool", "--model", "openai/*", "--model", "*")

        assert claims_of(token)["grants"] == [
            {"name": "room", "scope": "lab"},
            {"name": "role", "scope": "tool"},
            {"name": "api", "scope": {"llm": {"models": ["openai/*", "*"]}}},
        ]

    def test_token_without_models_grants_all_models(self, run: Run) -> None:
        assert claims_of(mint(run, "--identity", "ada"))["grants"] == [{"name": "api", "scope": {"llm": {}}}]

    @pytest.mark.parametrize(
        ("arguments", "lifetime"),
        [
            ([], timedelta(hours=24)),
            (["--expires-in", "90s"], timedelta(seconds=90)),
            (["--expires-in", "15m"], timedelta(minutes=15)),
            (["--expires-in", "30d"], timedelta(days=30)),
        ],
    )
    def test_token_expires_after_the_requested_time(self, run: Run, arguments: list[str], lifetime: timedelta) -> None:
        expires_at = datetime.fromtimestamp(claims_of(mint(run, "--identity", "ada", *arguments))["exp"], UTC)

        assert abs(expires_at - datetime.now(UTC) - lifetime) < timedelta(minutes=1)

    def test_token_without_an_end_needs_the_option_never(self, run: Run) -> None:
        assert "exp" not in claims_of(mint(run, "--identity", "ada", "--expires-in", "never"))

    def test_key_is_read_from_standard_input(self, run: Run) -> None:
        result = run("token", "mint", "--key-file", "-", "--identity", "ada", stdin=f"{WRITTEN}\n")

        assert claims_of(result.stdout)["name"] == "ada"

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--identity", "ada"],
            ["--key-env", "KEY"],
            ["--key-env", "KEY", "--key-file", "key.txt", "--identity", "ada"],
            ["--key-env", "KEY", "spec.yaml", "--identity", "ada"],
            ["--key-env", "KEY", "spec.yaml", "--model", "openai/*"],
            ["--key-env", "KEY", "--identity", "ada", "--model", "gpt-5"],
            ["--key-env", "KEY", "--identity", "ada", "--role", "king"],
            *(
                ["--key-env", "KEY", "--identity", "ada", "--expires-in", lifetime]
                for lifetime in ("0s", "1", "-1h", "9" * 12 + "d")
            ),
        ],
    )
    def test_invalid_command_line_exits_with_2(self, run: Run, arguments: list[str]) -> None:
        result = run("token", "mint", *arguments)

        assert (result.exit_code, result.stdout) == (2, "")
        assert SECRET not in result.stderr

    @pytest.mark.parametrize(
        ("arguments", "environment", "message"),
        [
            (["--key-env", "NOT_SET", "--identity", "ada"], {}, "environment variable NOT_SET is empty or not set"),
            (["--key-env", "KEY", "--identity", "ada"], {"KEY": SECRET}, "ma-<kid>-<project>-<secret>"),
            (["--key-file", "missing.txt", "--identity", "ada"], {}, "missing.txt cannot be read"),
            (["--key-env", "KEY", "missing.yaml"], {}, "missing.yaml: does not exist"),
            (["--key-env", "KEY", "--identity", "a\tb"], {}, "control character"),
        ],
    )
    def test_invalid_input_exits_with_1(
        self, run: Run, arguments: list[str], environment: dict[str, str], message: str
    ) -> None:
        result = run("token", "mint", *arguments, **environment)

        assert (result.exit_code, result.stdout) == (1, "")
        assert message in result.stderr
        assert SECRET not in result.stderr

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("version: v1", "version: v2", "spec.yaml:1: version: must be v1"),
            ("kind: ParticipantToken\n", "", "kind: must be ParticipantToken"),
            ("identity: ada", "identity: ''", "spec.yaml:3: identity: must be the name of the participant"),
            ("identity: ada", "identity: 7", "spec.yaml:3: identity"),
            ("room: lab", "room: [lab]", "spec.yaml:4: room"),
            ("role: agent", "role: king", "spec.yaml:5: role: must be one of user, agent, tool"),
            (
                "role: agent",
                "rolle: agent",
                "spec.yaml:5: rolle: unknown key; known keys are api, identity",
            ),
            ('{models: ["openai/*"]}', "null", "spec.yaml:7: api.llm: must be a mapping"),
            ('{models: ["openai/*"]}', "{model: x}", "api.llm.model: unknown key; the only known key is models"),
            ('["openai/*"]', "openai/*", "api.llm.models: must be a list"),
            ('["openai/*"]', "[gpt-5]", "api.llm.models[0]: 'gpt-5' matches no model"),
            ('["openai/*"]', "[7]", "api.llm.models[0]: must be a pattern"),
            ("send: [a]", "send: [1.5]", "spec.yaml:8: api.queues.send[0]: must not be a number with a decimal point"),
            ("room: lab", "room: lab\nroom: den", "duplicate key"),
        ],
    )
    def test_fault_of_a_spec_file_has_its_line(
        self, run: Run, tmp_path: Path, old: str, new: str, message: str
    ) -> None:
        assert old in SPEC
        (tmp_path / "spec.yaml").write_text(SPEC.replace(old, new))

        result = run("token", "mint", "--key-env", "KEY", "spec.yaml")

        assert (result.exit_code, result.stdout) == (1, "")
        assert message in result.stderr

    @pytest.mark.parametrize("content", ["[]", "text", "api: []"])
    def test_file_that_is_no_spec_is_rejected(self, run: Run, tmp_path: Path, content: str) -> None:
        (tmp_path / "spec.yaml").write_text(content)

        assert run("token", "mint", "--key-env", "KEY", "spec.yaml").exit_code == 1

    def test_token_longer_than_the_server_accepts_is_not_minted(self, run: Run, tmp_path: Path) -> None:
        models = json.dumps([f"openai/model-{number}" for number in range(1000)])
        (tmp_path / "spec.yaml").write_text(SPEC.replace('["openai/*"]', models))

        result = run("token", "mint", "--key-env", "KEY", "spec.yaml")

        assert (result.exit_code, result.stdout) == (1, "")
        assert "longer than" in result.stderr


class TestTokenInspect:
    def test_claims_are_printed_without_signature_or_secret(self, run: Run) -> None:
        token = mint(run, "spec.yaml", "--expires-in", "1h")

        result = run("token", "inspect", stdin=f"{token}\n")

        assert result.exit_code == 0
        claims = dict(re.split(r":\s+", line, maxsplit=1) for line in result.stdout.splitlines())
        assert claims.pop("expires").startswith("20")
        assert claims == {
            "verified": "not verified (use --config, --key-file or --key-env)",
            "participant": "ada",
            "project": PROJECT_ID,
            "signing key": KEY.id,
            "algorithm": "HS256",
            "room": "lab",
            "role": "agent",
            "models": "openai/*",
            "other api": "queues",
            "token id": hash_token(token),
            "not before": "now",
        }
        assert token.split(".")[2] not in result.output
        assert SECRET not in result.output

    @pytest.mark.parametrize("verifier", [["--key-env", "KEY"], ["--key-file", "key.txt"]])
    def test_token_is_verified_with_the_key(self, run: Run, verifier: list[str]) -> None:
        token = mint(run, "spec.yaml")

        result = run("token", "inspect", token, *verifier)

        assert result.exit_code == 0
        assert result.stdout.startswith("verified:     yes\n")

    def test_token_is_verified_with_the_server_configuration(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("TEST_OPENAI_KEY", "TEST_ANTHROPIC_KEY", "TEST_OTHER_SIGNING_SECRET", "TEST_ADMIN_TOKEN"):
            monkeypatch.setenv(name, "any")
        monkeypatch.setenv("TEST_SIGNING_SECRET", SECRET)
        config = write_config(tmp_path, "http://127.0.0.1:9")

        result = run("token", "inspect", mint(run, "spec.yaml"), "--config", str(config))

        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.startswith("verified:     yes\n")

    def test_invalid_configuration_exits_with_1(self, run: Run, tmp_path: Path) -> None:
        result = run("token", "inspect", mint(run, "spec.yaml"), "--config", str(tmp_path / "none.yaml"))

        assert result.exit_code == 1
        assert "none.yaml: does not exist" in result.stderr

    def test_invalid_signature_exits_with_1_and_prints_the_claims(self, run: Run) -> None:
        token = jwt.encode(claims_of(mint(run, "spec.yaml")), "another" * 8, algorithm="HS256")

        result = run("token", "inspect", token, "--key-env", "KEY")

        assert result.exit_code == 1
        assert "verified:     no: invalid token signature" in result.stdout
        assert "participant:  ada" in result.stdout

    @pytest.mark.parametrize(
        ("times", "warning"),
        [
            ({"exp": 1_700_000_000}, "warning: token expired at 2023-11-14T22:13:20Z"),
            (
                {"nbf": 4_000_000_000, "exp": 4_100_000_000},
                "warning: token is not valid yet (nbf is 2096-10-02T",
            ),
            ({}, "warning: the token never expires"),
        ],
    )
    def test_invalid_times_are_warnings_on_standard_error(self, run: Run, times: dict[str, int], warning: str) -> None:
        claims = {"name": "ada", "grants": [], "sub": PROJECT_ID, "kid": KEY.id, **times}

        result = run("token", "inspect", jwt.encode(claims, SECRET, algorithm="HS256"))

        assert result.exit_code == 0
        assert result.stderr.startswith(warning)
        assert "models:       none: the token has no api grant" in result.stdout

    @pytest.mark.parametrize(
        ("scope", "description"),
        [
            ({}, "none: the api grant has no llm section"),
            ({"llm": {}}, "all models of the project"),
            ({"llm": {"models": []}}, "none: llm.models is empty"),
            ({"llm": {"models": ["openai/*", "a\u001b[2J"]}}, 'openai/*, "a\\u001b[2J"'),
        ],
    )
    def test_granted_models_are_printed(self, run: Run, scope: dict[str, Any], description: str) -> None:
        claims = {"name": "ada", "grants": [{"name": "api", "scope": scope}]}

        result = run("token", "inspect", "-", stdin=f"Bearer {jwt.encode(claims, SECRET, algorithm='HS256')}\n")

        assert result.exit_code == 0
        assert f"models:       {description}\n" in result.stdout
        assert "signing key:  none named\n" in result.stdout

    @pytest.mark.parametrize("text", ["", "sk-proj-somebody-s-key", "a.b.c"])
    def test_text_that_is_no_token_exits_with_1_and_is_not_printed(self, run: Run, text: str) -> None:
        result = run("token", "inspect", stdin=text)

        assert (result.exit_code, result.stdout) == (1, "")
        assert "not a token" in result.stderr
        assert "somebody" not in result.stderr

    @pytest.mark.parametrize(
        "arguments", [["--config", "a.yaml", "--key-env", "KEY"], ["--key-file", "-"], ["a", "--key-file", "b", "c"]]
    )
    def test_invalid_command_line_exits_with_2(self, run: Run, arguments: list[str]) -> None:
        assert run("token", "inspect", *arguments).exit_code == 2


def test_narrowed_token_grants_less_and_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = run("token", "mint", "--key-file", "-", "--identity", "ada", "--expires-in", "1h", stdin=WRITTEN).stdout
    monkeypatch.setenv("MESHAGENT_TOKEN", parent.strip())

    narrowed = run("token", "narrow", "--model", "openai/gpt-5", "--models", "openai/o*", "--expires-in", "5m")
    from_input = run("token", "narrow", "--expires-in", "2h", "--token", "-", stdin=parent)

    report = run("token", "inspect", "--key-env", "KEY", narrowed.stdout.strip()).stdout
    assert "verified:     yes" in report
    assert "participant:  ada" in report
    assert "models:       openai/gpt-5, openai/o*" in report
    claims = [decode_claims(text.strip()) for text in (parent, narrowed.stdout, from_input.stdout)]
    assert claims[0]["exp"] - 3310 < claims[1]["exp"] < claims[0]["exp"] - 3290
    # The parent's end limits the lifetime.
    assert claims[2]["exp"] == claims[0]["exp"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param([], "nothing to narrow; use --model, --expires-in or --budget", id="no option"),
        pytest.param(["--model", "gpt-5"], "'gpt-5' matches no model", id="pattern"),
        pytest.param(["--model", "openai/*", "--token", "sk-mine"], "the credential is not a token", id="provider key"),
    ],
)
def test_token_that_cannot_be_narrowed_is_an_error(run: Run, arguments: list[str], message: str) -> None:
    expired = jwt.encode({"exp": 1, "grants": []}, SECRET)
    narrowed = run("token", "narrow", *arguments, MESHAGENT_TOKEN=expired)

    assert narrowed.exit_code in (1, 2)
    assert message in narrowed.stderr
    assert narrowed.stdout == ""


def test_missing_and_expired_parents_are_errors(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MESHAGENT_TOKEN", raising=False)

    missing = run("token", "narrow", "--model", "openai/*")
    expired = run("token", "narrow", "--model", "openai/*", "--token", jwt.encode({"exp": 1, "grants": []}, SECRET))

    assert "set MESHAGENT_TOKEN" in missing.stderr
    assert "token expired at 1970-01-01T00:00:01Z" in expired.stderr


def decode_claims(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


@pytest.mark.parametrize("command", [["key", "create"], ["token", "mint"], ["token", "inspect"]])
def test_help_has_an_example_on_its_own_lines(run: Run, command: list[str]) -> None:
    result = run(*command, "--help")

    assert result.exit_code == 0
    assert f"Example:\n    tornado-proxy {' '.join(command)} " in result.stdout
    assert "\\b" not in result.stdout
