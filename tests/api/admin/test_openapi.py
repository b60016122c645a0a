"""The OpenAPI document and the server state the same: paths, methods, statuses, bodies."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from openapi_spec_validator import validate

from tests.harness import ADMIN_TOKEN, OTHER_PROJECT, PROJECT, ROOT, TIMEOUT_S, ProxyProcess, running_proxy
from tornado_proxy.api.admin.base_handler import list_methods
from tornado_proxy.api.admin.openapi import load_openapi
from tornado_proxy.api.admin.routes import ROUTES
from tornado_proxy.api.usage_query import OPERATOR_PARAMETERS

#: Nothing listens there; the admin port needs no provider.
NOWHERE = "http://127.0.0.1:9"

#: Random requests of each kind for each operation, beside the systematic ones of the phase `coverage`.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "6"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    state = {"keys": {"env": "TEST_STATE_KEYS"}}
    with running_proxy(tmp_path_factory.mktemp("admin"), NOWHERE, state=state) as running:
        yield running


def test_document_is_valid_openapi() -> None:
    validate(load_openapi())


def test_document_names_the_paths_and_methods_of_the_route_table() -> None:
    described = {
        (path, method.upper())
        for path, operations in load_openapi()["paths"].items()
        for method in operations
        if method != "parameters"
    }

    assert described == {(route.path, method) for route in ROUTES for method in list_methods(route.handler)}


def test_document_names_the_parameters_of_the_usage_api() -> None:
    parameters = load_openapi()["paths"]["/v1/usage"]["get"]["parameters"]

    assert {parameter["name"] for parameter in parameters} == set(OPERATOR_PARAMETERS)


def test_document_is_served(server: ProxyProcess) -> None:
    response = httpx.get(
        f"{server.admin_url}/openapi.json", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}, timeout=TIMEOUT_S
    )

    assert response.headers["content-type"] == "application/json"
    assert response.json() == load_openapi()


def write_document(folder: Path) -> Path:
    """Write the document with the one rule that only a configuration knows: the ids of the projects."""
    document = copy.deepcopy(load_openapi())
    for name in ("AccessKeySettings", "AccessKeyImport"):
        document["components"]["schemas"][name]["properties"]["project_id"] = {"enum": [PROJECT, OTHER_PROJECT]}
    path = folder / "openapi.json"
    path.write_text(json.dumps(document))
    return path


def test_server_keeps_the_document(server: ProxyProcess, tmp_path: Path) -> None:
    """Send generated requests, valid and invalid ones, with and without the credential."""
    document = load_openapi()
    operations = sum(method != "parameters" for path in document["paths"].values() for method in path)
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        *("run", str(write_document(tmp_path)), "--url", server.admin_url),
        *("--header", f"Authorization: Bearer {ADMIN_TOKEN}", "--max-examples", str(EXAMPLES), "--seed", "13"),
        # A valid request can be refused: an id is unknown, a name has a control character, a pattern is no pattern.
        *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
        *("--phases", "examples,coverage,fuzzing", "--generation-database", "none", "--no-color"),
    ]

    finished = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        # Hypothesis computes the characters of each encoding for a folder that has none.
        env={**os.environ, "PYTHONWARNINGS": "ignore", "HYPOTHESIS_STORAGE_DIRECTORY": str(ROOT / ".hypothesis")},
        timeout=110,
        check=False,
    )

    assert finished.returncode == 0, finished.stdout[-20_000:] + finished.stderr[-2_000:]
    assert f"Selected: {operations}/{operations}" in finished.stdout
    assert server.fetch_admin("/readyz") == (200, "ready\n")
    assert json.loads(server.fetch_admin("/v1/access-keys")[1])["access_keys"], "no generated request was accepted"
    assert not [line for line in server.log if "request failed" in line or '"level":"error"' in line]
