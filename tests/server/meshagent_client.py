"""The usage method of the public client, meshagent-api 0.56.0.

The class is cut out of the package's own file and runs unchanged: the module around it needs Python 3.13 and a dozen
packages, the methods that this call uses need neither.
"""

from __future__ import annotations

import ast
import json
from datetime import datetime
from typing import Any, Optional

from tests.meshagent_package import find_meshagent

_METHODS = {
    "_get_headers",
    "_get_consistency_headers",
    "_ensure_success",
    "get_current_user_llm_proxy_usage",
}


class RoomException(Exception):
    """Raised by the package for an error response; a stand-in for the class of the same name in it."""


def usage_client(base_url: str, token: str, session: Any) -> Any:
    """Return the package's client, reduced to the usage method, over an aiohttp session."""
    file = find_meshagent() / "api" / "client.py"
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
    """Return the module reduced to the class Meshagent with the methods of _METHODS."""
    (client,) = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "Meshagent"]
    methods = [node for node in client.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    client.body = [node for node in methods if node.name in _METHODS]
    constant = ast.parse('MESHAGENT_CONSISTENCY_HEADER = "Consistency"').body
    return ast.Module(body=[*constant, client], type_ignores=[])
