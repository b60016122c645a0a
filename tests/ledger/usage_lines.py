"""Reads `tornado-proxy usage --format jsonl` and validates its lines against their schema."""

from __future__ import annotations

import json
import os
from typing import Any

from jsonschema import Draft202012Validator

from tests.forked_program import run_program
from tests.harness import ROOT

SCHEMA: dict[str, Any] = json.loads((ROOT / "schemas" / "usage_record.schema.json").read_text("utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)


def faults(line: object) -> list[str]:
    """Return the faults of a line, each as `member: rule`."""
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(line)]


def print_usage(url: str) -> list[dict[str, Any]]:
    """Return the lines that the command prints for the ledger at `url`."""
    done = run_program("tornado_proxy", ["usage", "--ledger", url, "--format", "jsonl"], os.environ)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
