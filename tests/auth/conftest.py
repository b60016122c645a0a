from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.meshagent_package import find_meshagent


@pytest.fixture(scope="session")
def meshagent() -> Iterator[ModuleType]:
    """Return `meshagent.api` of the public package, without running its `__init__`.

    The `__init__` imports the whole client, which needs a later Python and a dozen packages; the token modules need
    neither.
    """
    package = ModuleType("meshagent.api")
    package.__path__ = [str(find_meshagent() / "api")]
    before = set(sys.modules)
    sys.modules["meshagent.api"] = package
    try:
        package.participant_token = importlib.import_module("meshagent.api.participant_token")  # type: ignore[attr-defined]
        package.keys = importlib.import_module("meshagent.api.keys")  # type: ignore[attr-defined]
        yield package
    finally:
        for name in set(sys.modules) - before:
            if name.startswith("meshagent"):
                del sys.modules[name]
