"""Lines of `tornado-proxy usage --format jsonl`, and the schema that they keep to."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from jsonschema import Draft202012Validator

from tests.harness import ROOT

SCHEMA: dict[str, Any] = json.loads((ROOT / "schemas" / "usage_record.schema.json").read_text("utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)


def faults(line: object) -> list[str]:
    """What is wrong with a line, as `member: rule`."""
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(line)]


def printed(url: str) -> list[dict[str, Any]]:
    """What the command prints of the ledger at `url`."""
    command = [sys.executable, "-m", "tornado_proxy", "usage", "--ledger", url, "--format", "jsonl"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return [json.loads(line) for line in done.stdout.splitlines()]
