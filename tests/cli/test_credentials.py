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
    """Runs a command line in `tmp_path`; the API key is in the environment variable KEY and in the file key.txt."""
    (tmp_path / "key.txt").write_text(WRITTEN + "\n")
    (tmp_path / "spec.yaml").write_text(SPEC)

    def run(*arguments: str, stdin: str = "", **environment: str) -> Result:
        named = [str(tmp_path / one) if one in ("key.txt", "spec.yaml", "new.key") else one for one in arguments]
        result = CliRunner().invoke(main, named, input=stdin, env={"KEY": WRITTEN, **environment})
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
    def test_the_key_and_the_lines_for_the_server_belong_together(self, run: Run) -> None:
        result = run("key", "create", "--project", PROJECT_ID, "--env", "ACME_KEY")

        assert result.exit_code == 0
        key = parse_api_key(next(line for line in result.stdout.splitlines() if line.startswith("ma-")))
        assert key.project_id == PROJECT_ID
        assert f"ACME_KEY={key.secret.reveal()}" in result.stdout.splitlines()
        lines = yaml.safe_load(result.stdout[result.stdout.index("    api_keys:") :])
        assert lines == {"api_keys": [{"id": key.id, "secret": {"env": "ACME_KEY"}}]}

    def test_each_line_is_said_to_be_secret_or_not(self, run: Run) -> None:
        said = run("key", "create", "--project", PROJECT_ID).stdout.splitlines()

        comments = {said[number + 1][:3]: line for number, line in enumerate(said) if line.startswith("#")}
        assert "a secret" in comments["ma-"]
        assert "for the server alone" in comments["PRO"]
        assert "Not secret" in comments["   "]

    def test_the_secret_can_go_into_a_file_that_only_its_owner_reads(self, run: Run, tmp_path: Path) -> None:
        result = run("key", "create", "--project", PROJECT_ID, "--file", "new.key")

        file = tmp_path / "new.key"
        key = parse_api_key(next(line for line in result.stdout.splitlines() if line.startswith("ma-")))
        assert file.read_text() == key.secret.reveal() + "\n"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert result.stdout.count(key.secret.reveal()) == 1
        lines = yaml.safe_load(result.stdout[result.stdout.index("    api_keys:") :])
        assert lines["api_keys"][0]["secret"] == {"file": str(file)}

    def test_a_file_that_exists_is_left_alone(self, run: Run, tmp_path: Path) -> None:
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
    def test_wrong_usage_exits_with_2(self, run: Run, arguments: list[str]) -> None:
        result = run("key", "create", *arguments)

        assert (result.exit_code, result.stdout) == (2, "")


class TestTokenMint:
    def test_a_spec_file_becomes_a_token(self, run: Run) -> None:
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

    def test_flags_do_without_a_spec_file(self, run: Run) -> None:
        token = mint(run, "--identity", "ada", "--room", "lab", "--role", "tool", "--model", "openai/*", "--model", "*")

        assert claims_of(token)["grants"] == [
            {"name": "room", "scope": "lab"},
            {"name": "role", "scope": "tool"},
            {"name": "api", "scope": {"llm": {"models": ["openai/*", "*"]}}},
        ]

    def test_without_models_all_are_granted(self, run: Run) -> None:
        assert claims_of(mint(run, "--identity", "ada"))["grants"] == [{"name": "api", "scope": {"llm": {}}}]

    @pytest.mark.parametrize(
        ("arguments", "life"),
        [
            ([], timedelta(hours=24)),
            (["--expires-in", "90s"], timedelta(seconds=90)),
            (["--expires-in", "15m"], timedelta(minutes=15)),
            (["--expires-in", "30d"], timedelta(days=30)),
        ],
    )
    def test_a_token_holds_as_long_as_it_was_asked_to(self, run: Run, arguments: list[str], life: timedelta) -> None:
        expires_at = datetime.fromtimestamp(claims_of(mint(run, "--identity", "ada", *arguments))["exp"], UTC)

        assert abs(expires_at - datetime.now(UTC) - life) < timedelta(minutes=1)

    def test_a_token_that_never_expires_must_be_asked_for(self, run: Run) -> None:
        assert "exp" not in claims_of(mint(run, "--identity", "ada", "--expires-in", "never"))

    def test_the_key_may_come_from_standard_input(self, run: Run) -> None:
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
                ["--key-env", "KEY", "--identity", "ada", "--expires-in", life]
                for life in ("0s", "1", "-1h", "9" * 12 + "d")
            ),
        ],
    )
    def test_wrong_usage_exits_with_2(self, run: Run, arguments: list[str]) -> None:
        result = run("token", "mint", *arguments)

        assert (result.exit_code, result.stdout) == (2, "")
        assert SECRET not in result.stderr

    @pytest.mark.parametrize(
        ("arguments", "environment", "says"),
        [
            (["--key-env", "NOT_SET", "--identity", "ada"], {}, "environment variable NOT_SET is empty or not set"),
            (["--key-env", "KEY", "--identity", "ada"], {"KEY": SECRET}, "ma-<kid>-<project>-<secret>"),
            (["--key-file", "missing.txt", "--identity", "ada"], {}, "missing.txt cannot be read"),
            (["--key-env", "KEY", "missing.yaml"], {}, "missing.yaml: does not exist"),
            (["--key-env", "KEY", "--identity", "a\tb"], {}, "control character"),
        ],
    )
    def test_a_fault_of_the_input_exits_with_1(
        self, run: Run, arguments: list[str], environment: dict[str, str], says: str
    ) -> None:
        result = run("token", "mint", *arguments, **environment)

        assert (result.exit_code, result.stdout) == (1, "")
        assert says in result.stderr
        assert SECRET not in result.stderr

    @pytest.mark.parametrize(
        ("old", "new", "says"),
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
    def test_each_fault_of_a_spec_is_named_with_its_line(
        self, run: Run, tmp_path: Path, old: str, new: str, says: str
    ) -> None:
        assert old in SPEC
        (tmp_path / "spec.yaml").write_text(SPEC.replace(old, new))

        result = run("token", "mint", "--key-env", "KEY", "spec.yaml")

        assert (result.exit_code, result.stdout) == (1, "")
        assert says in result.stderr

    @pytest.mark.parametrize("content", ["[]", "text", "api: []"])
    def test_a_file_that_is_no_spec_is_refused(self, run: Run, tmp_path: Path, content: str) -> None:
        (tmp_path / "spec.yaml").write_text(content)

        assert run("token", "mint", "--key-env", "KEY", "spec.yaml").exit_code == 1

    def test_a_token_that_the_server_would_find_too_long_is_not_minted(self, run: Run, tmp_path: Path) -> None:
        models = json.dumps([f"openai/model-{number}" for number in range(1000)])
        (tmp_path / "spec.yaml").write_text(SPEC.replace('["openai/*"]', models))

        result = run("token", "mint", "--key-env", "KEY", "spec.yaml")

        assert (result.exit_code, result.stdout) == (1, "")
        assert "longer than" in result.stderr


class TestTokenInspect:
    def test_it_says_what_the_token_says_and_neither_signature_nor_secret(self, run: Run) -> None:
        token = mint(run, "spec.yaml", "--expires-in", "1h")

        result = run("token", "inspect", stdin=f"{token}\n")

        assert result.exit_code == 0
        said = dict(re.split(r":\s+", line, maxsplit=1) for line in result.stdout.splitlines())
        assert said.pop("expires").startswith("20")
        assert said == {
            "verified": "not verified (use --config, --key-file or --key-env)",
            "participant": "ada",
            "project": PROJECT_ID,
            "signing key": KEY.id,
            "algorithm": "HS256",
            "room": "lab",
            "role": "agent",
            "models": "openai/*",
            "other api": "queues",
            "not before": "now",
        }
        assert token.split(".")[2] not in result.output
        assert SECRET not in result.output

    @pytest.mark.parametrize("verifier", [["--key-env", "KEY"], ["--key-file", "key.txt"]])
    def test_it_verifies_with_the_key(self, run: Run, verifier: list[str]) -> None:
        token = mint(run, "spec.yaml")

        result = run("token", "inspect", token, *verifier)

        assert result.exit_code == 0
        assert result.stdout.startswith("verified:     yes\n")

    def test_it_verifies_with_the_server_s_configuration(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("TEST_OPENAI_KEY", "TEST_ANTHROPIC_KEY", "TEST_OTHER_SIGNING_SECRET"):
            monkeypatch.setenv(name, "any")
        monkeypatch.setenv("TEST_SIGNING_SECRET", SECRET)
        config = write_config(tmp_path, "http://127.0.0.1:9")

        result = run("token", "inspect", mint(run, "spec.yaml"), "--config", str(config))

        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.startswith("verified:     yes\n")

    def test_a_configuration_that_cannot_be_used_is_a_fault_of_the_input(self, run: Run, tmp_path: Path) -> None:
        result = run("token", "inspect", mint(run, "spec.yaml"), "--config", str(tmp_path / "none.yaml"))

        assert result.exit_code == 1
        assert "none.yaml: does not exist" in result.stderr

    def test_a_signature_that_does_not_hold_exits_with_1_and_shows_the_claims(self, run: Run) -> None:
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
    def test_it_warns_of_times_on_standard_error(self, run: Run, times: dict[str, int], warning: str) -> None:
        claims = {"name": "ada", "grants": [], "sub": PROJECT_ID, "kid": KEY.id, **times}

        result = run("token", "inspect", jwt.encode(claims, SECRET, algorithm="HS256"))

        assert result.exit_code == 0
        assert result.stderr.startswith(warning)
        assert "models:       none: the token has no api grant" in result.stdout

    @pytest.mark.parametrize(
        ("scope", "said"),
        [
            ({}, "none: the api grant has no llm section"),
            ({"llm": {}}, "all models of the project"),
            ({"llm": {"models": []}}, "none: llm.models is empty"),
            ({"llm": {"models": ["openai/*", "a\u001b[2J"]}}, 'openai/*, "a\\u001b[2J"'),
        ],
    )
    def test_it_says_which_models_are_granted(self, run: Run, scope: dict[str, Any], said: str) -> None:
        claims = {"name": "ada", "grants": [{"name": "api", "scope": scope}]}

        result = run("token", "inspect", "-", stdin=f"Bearer {jwt.encode(claims, SECRET, algorithm='HS256')}\n")

        assert result.exit_code == 0
        assert f"models:       {said}\n" in result.stdout
        assert "signing key:  none named\n" in result.stdout

    @pytest.mark.parametrize("text", ["", "sk-proj-somebody-s-key", "a.b.c"])
    def test_what_is_no_token_exits_with_1_and_is_not_repeated(self, run: Run, text: str) -> None:
        result = run("token", "inspect", stdin=text)

        assert (result.exit_code, result.stdout) == (1, "")
        assert "not a token" in result.stderr
        assert "somebody" not in result.stderr

    @pytest.mark.parametrize(
        "arguments", [["--config", "a.yaml", "--key-env", "KEY"], ["--key-file", "-"], ["a", "--key-file", "b", "c"]]
    )
    def test_wrong_usage_exits_with_2(self, run: Run, arguments: list[str]) -> None:
        assert run("token", "inspect", *arguments).exit_code == 2


@pytest.mark.parametrize("command", [["key", "create"], ["token", "mint"], ["token", "inspect"]])
def test_help_shows_an_example_on_its_own_lines(run: Run, command: list[str]) -> None:
    result = run(*command, "--help")

    assert result.exit_code == 0
    assert f"Example:\n    tornado-proxy {' '.join(command)} " in result.stdout
    assert "\\b" not in result.stdout
