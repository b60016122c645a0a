"""The usage call of the public client, meshagent-api 0.56.0.

The class is taken out of the package's own file and run as it stands there: the module around it needs Python 3.13 and
a dozen packages, the methods that this call goes through need neither.
"""

from __future__ import annotations

import ast
import importlib.util
import json
from datetime import datetime
from pathlib import Path
from typing import Any, Optional

_METHODS = {
    "_get_headers",
    "_get_consistency_headers",
    "_ensure_success",
    "get_current_user_llm_proxy_usage",
}


class RoomException(Exception):
    """What the package raises for an answer that is no success."""


def usage_client(base_url: str, token: str, session: Any) -> Any:
    """The package's client class, cut to the usage call, over an aiohttp session."""
    spec = importlib.util.find_spec("meshagent")
    assert spec is not None, "install meshagent-api as tests/setup does"
    assert spec.submodule_search_locations is not None
    file = Path(next(iter(spec.submodule_search_locations))) / "api" / "client.py"
    names: dict[str, Any] = {
        "json": json,
        "datetime": datetime,
        "Any": Any,
        "Dict": dict,
        "List": list,
        "Optional": Optional,
        "RoomException": RoomException,
    }
    exec(compile(_cut(file.read_text("utf-8")), str(file), "exec"), names)  # noqa: S102  # the package under test
    client = names["Meshagent"].__new__(names["Meshagent"])
    client.base_url, client.token, client.consistency, client._session = base_url, token, "fast", session
    return client


def _cut(source: str) -> ast.Module:
    (found,) = [one for one in ast.parse(source).body if isinstance(one, ast.ClassDef) and one.name == "Meshagent"]
    methods = [one for one in found.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
    found.body = [one for one in methods if one.name in _METHODS]
    constant = ast.parse('MESHAGENT_CONSISTENCY_HEADER = "Consistency"').body
    return ast.Module(body=[*constant, found], type_ignores=[])
