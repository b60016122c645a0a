"""The public package meshagent-api, which mints tokens and reads usage as its users do."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest


def find_meshagent() -> Path:
    """Return the folder of the package `meshagent`; skip the test if it is missing, or fail it if CI is `true`.

    The package declares Python 3.13, so `pip install -e .[dev]` cannot name it.  The modules that tests use run on
    3.11, and tests/setup installs it with --ignore-requires-python.
    """
    spec = importlib.util.find_spec("meshagent")
    if spec is not None and spec.submodule_search_locations is not None:
        return Path(next(iter(spec.submodule_search_locations)))
    reason = "meshagent-api is not installed; run tests/setup"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
