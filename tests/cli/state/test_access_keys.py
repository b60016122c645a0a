"""`tornado-proxy access-key`: the secrets are shown once, and the ledger's database keeps their SHA-256 only."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.cli.rated_ledger import run
from tests.harness import OTHER_PROJECT, PROJECT, write_config


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a configuration whose secrets are not set: the commands need none of them."""
    return write_config(tmp_path, "http://127.0.0.1:9")


def run_command(config: Path, *arguments: str) -> Result:
    return run("access-key", *arguments, "--config", config)


def create(config: Path, *arguments: str, project: str = PROJECT) -> dict[str, Any]:
    """Create a key; return its document."""
    created = run_command(config, "create", "build server", "--project", project, "--format", "json", *arguments)
    assert created.exit_code == 0, created.stderr
    document: dict[str, Any] = json.loads(created.stdout)
    return document


def list_keys(config: Path, *arguments: str) -> list[dict[str, Any]]:
    listed = run_command(config, "list", "--format", "json", *arguments)
    assert listed.exit_code == 0, listed.stderr
    keys: list[dict[str, Any]] = json.loads(listed.stdout)["access_keys"]
    return keys


def test_created_secret_alone_is_on_standard_output_and_nowhere_else(config: Path) -> None:
    created = run_command(config, "create", "build server", "--project", PROJECT)

    secret = created.stdout.strip()
    assert re.fullmatch(r"tp_[A-Za-z0-9_-]{43}", secret)
    assert secret not in created.stderr
    assert re.fullmatch(r"created ak_[0-9a-f]{24}; the key above is not shown again\n", created.stderr)
    stored = b"".join(file.read_bytes() for file in config.parent.iterdir())
    assert secret.encode() not in stored
    assert hashlib.sha256(secret.encode()).hexdigest().encode() in stored


def test_listed_key_has_all_its_settings_and_no_secret(config: Path) -> None:
    document = create(
        config,
        *("--participant", "ci", "--model", "openai/gpt-5*", "--model", "anthropic/*"),
        *("--label", "team=web", "--label", "note=a=b", "--expires-in", "1h"),
    )

    (key,) = list_keys(config)

    secret = document.pop("secret")
    assert key == document
    assert key["name"] == "build server"
    assert key["project_id"] == PROJECT
    assert key["participant"] == "ci"
    assert key["models"] == ["openai/gpt-5*", "anthropic/*"]
    assert key["labels"] == {"team": "web", "note": "a=b"}
    assert key["expires_at"] > key["created_at"]
    assert key["revoked_at"] is None
    table = run_command(config, "list").stdout
    assert key["id"] in table
    assert secret not in table


def test_list_of_a_project_has_its_keys_only(config: Path) -> None:
    create(config)
    other = create(config, project=OTHER_PROJECT)

    assert [key["id"] for key in list_keys(config, "--project", OTHER_PROJECT)] == [other["id"]]
    assert len(list_keys(config)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--project", "0c9f8a5e"], "project '0c9f8a5e' is not in the configuration", id="project"),
        pytest.param(["--model", "gpt-5"], "'gpt-5' matches no model", id="model"),
        pytest.param(
            ["--participant", "a\nb"], "participant must have 1 to 200 printable characters", id="participant"
        ),
        pytest.param(["--label", "team"], "a label must have the form NAME=VALUE", id="label"),
        pytest.param(["--label", "a=1", "--label", "a=2"], "a label was given twice", id="label twice"),
        pytest.param(["--label", "=1"], "label name '' must have", id="label without a name"),
        pytest.param(["--expires-in", "0s"], "'0s' is not a duration", id="lifetime"),
    ],
)
def test_invalid_setting_creates_no_key(config: Path, arguments: list[str], message: str) -> None:
    created = run_command(config, "create", "build server", "--project", PROJECT, *arguments)

    assert created.exit_code in (1, 2)
    assert message in created.stderr
    assert created.stdout == ""
    assert list_keys(config) == []


def test_rotation_shows_a_new_secret_and_the_end_of_the_old_one(config: Path) -> None:
    key = create(config)

    rotated = run_command(config, "rotate", key["id"], "--grace", "1h")

    assert re.fullmatch(r"tp_[A-Za-z0-9_-]{43}", rotated.stdout.strip())
    assert rotated.stdout.strip() != key["secret"]
    ends = list_keys(config)[0]["previous_secret_valid_until"]
    assert rotated.stderr == f"rotated {key['id']}; the secret before it is valid until {ends}\n"
    refused = run_command(config, "rotate", key["id"], "--grace", "never")
    assert refused.exit_code == 2
    assert "a secret that was replaced must end" in refused.stderr


def test_revoked_key_stays_in_the_list(config: Path) -> None:
    key = create(config)

    revoked = run_command(config, "revoke", key["id"])
    again = run_command(config, "revoke", key["id"])

    assert (revoked.exit_code, revoked.stderr) == (0, f"revoked {key['id']}\n")
    assert again.exit_code == 1
    assert "was revoked at" in again.stderr
    assert list_keys(config)[0]["revoked_at"] is not None
    assert "revoked" in run_command(config, "list").stdout


def test_key_of_another_gateway_is_imported_by_its_digest(config: Path) -> None:
    digest = hashlib.sha256(b"sk-of-a-former-gateway").hexdigest()

    imported = run_command(config, "import", "ada", "--project", PROJECT, "--sha256", digest.upper())
    again = run_command(config, "import", "eve", "--project", PROJECT, "--sha256", digest)

    assert imported.exit_code == 0, imported.stderr
    assert [key["name"] for key in list_keys(config)] == ["ada"]
    assert again.exit_code == 1
    assert "an access key with this secret exists already" in again.stderr


@pytest.mark.parametrize("text", ["sk-of-a-former-gateway", "ab" * 31, "zz" * 32, ""])
def test_import_of_a_text_that_is_no_digest_is_refused_without_showing_it(config: Path, text: str) -> None:
    imported = run_command(config, "import", "ada", "--project", PROJECT, "--sha256", text)

    assert imported.exit_code == 1
    assert imported.stderr == "Error: the SHA-256 of the key must have 64 hexadecimal digits\n"


def test_changes_are_kept_with_the_user_of_the_operating_system(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "mallory")
    monkeypatch.setenv("USER", "mallory")
    key = create(config)

    with sqlite3.connect(config.parent / "ledger.db") as db:
        changes = db.execute("SELECT actor, action, subject FROM state_changes").fetchall()
    db.close()

    user = pwd.getpwuid(os.getuid()).pw_name
    assert changes == [(f"cli:{user}", "access key created", key["id"])]


def test_database_that_cannot_be_used_is_an_error_with_a_remedy(config: Path) -> None:
    (config.parent / "ledger.db").write_text("no database" * 1000)

    listed = run_command(config, "list")

    assert listed.exit_code == 1
    assert "is damaged or no ledger" in listed.stderr


def test_projects_in_a_folder_are_found(tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9", projects="teams")
    (tmp_path / "teams").mkdir()
    (tmp_path / "teams" / "a.yaml").write_text("projects: [{id: aaaaaaaa-9a1e-4f6b-8c43-1d2a7f6f0a10, name: a}]\n")
    (tmp_path / "teams" / "b.yaml").write_text("projects: [{id: bbbbbbbb-9a1e-4f6b-8c43-1d2a7f6f0a10, name: b}]\n")

    create(config, project="bbbbbbbb-9a1e-4f6b-8c43-1d2a7f6f0a10")

    assert len(list_keys(config)) == 1


def test_long_name_is_cut_in_the_table_and_whole_in_json(config: Path) -> None:
    name = "x" * 100 + "y" * 100
    create(config, "--participant", name)

    assert [key["participant"] for key in list_keys(config)] == [name]
    table = run_command(config, "list").stdout
    assert "x" * 32 + "…" + "y" * 31 in table
    assert name not in table
