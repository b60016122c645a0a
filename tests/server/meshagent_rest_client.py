"""The REST client of the public package meshagent-api 0.56.0, its methods and models for the paths that we serve.

They are cut out of the package's own file and run unchanged: the module around them needs Python 3.13.
"""

from __future__ import annotations

import ast
import json
from datetime import datetime
from typing import Any, Literal, Optional, TypeVar
from urllib.parse import quote

import aiohttp
import pydantic

from tests.meshagent_package import find_meshagent

_METHODS = {
    *("_get_headers", "_get_consistency_headers", "_ensure_success", "_raise_for_status", "_read_model"),
    *("get_config", "get_user_profile", "whoami", "list_projects", "get_project", "test_access", "connect_room"),
    *("get_project_settings_document", "set_project_settings_document", "delete_project_settings_document"),
    *("_project_settings_document_path",),
    *("mint_participant_token", "get_usage", "get_current_user_llm_proxy_usage", "exchange_oauth_token"),
}
_DEFINITIONS = {
    *("NotFoundError", "PermissionDeniedError", "ConflictError", "ValidationErrorResponse", "ServerError"),
    *(
        "RoomConnectionInfo",
        "ProjectSettingsDocumentName",
        "MeshagentDomains",
        "MeshagentDeploymentConfig",
        "OAuthTokenResponse",
    ),
    *("AccessSubjectType", "AccessResourceType", "AccessSubject", "AccessResource", "AccessTestResult"),
    *("ServiceAccount", "Whoami", "User", "UserProfileView", "ProjectInfo", "ProjectsPage", "_ModelT"),
}


class RoomException(Exception):
    """Raised by the package for an error response; a stand-in for the class of the same name in it."""


def load_package() -> dict[str, Any]:
    """Return the definitions of the package by name: the class Meshagent, its models and its errors."""
    file = find_meshagent() / "api" / "client.py"
    names: dict[str, Any] = {
        **{name: getattr(pydantic, name) for name in pydantic.__all__ if hasattr(pydantic, name)},
        **{"__name__": "meshagent_rest", "json": json, "quote": quote, "datetime": datetime, "aiohttp": aiohttp},
        **{"Any": Any, "Dict": dict, "List": list, "Literal": Literal, "Optional": Optional, "TypeVar": TypeVar},
        **{"RoomException": RoomException, "RoomDisabledError": RoomException},
    }
    exec(compile(_cut(file.read_text("utf-8")), str(file), "exec", dont_inherit=True), names)  # noqa: S102  # the package under test
    names["Whoami"].model_rebuild(_types_namespace=names)
    return names


def make_client(package: dict[str, Any], base_url: str, token: str, session: aiohttp.ClientSession) -> Any:
    client = package["Meshagent"].__new__(package["Meshagent"])
    client.base_url, client.token, client.consistency, client._session = base_url, token, "fast", session
    return client


def _cut(source: str) -> ast.Module:
    body: list[ast.stmt] = [*ast.parse('MESHAGENT_CONSISTENCY_HEADER = "Consistency"').body]
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == "Meshagent":
            functions = [item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
            node.body = [item for item in functions if item.name in _METHODS]
            body.append(node)
        elif _name_of(node) in _DEFINITIONS:
            body.append(node)
    return ast.Module(body=body, type_ignores=[])


def _name_of(node: ast.stmt) -> str:
    if isinstance(node, ast.ClassDef):
        return node.name
    is_simple = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    return node.targets[0].id if is_simple else ""  # type: ignore[attr-defined,no-any-return]  # checked above
