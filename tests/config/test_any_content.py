"""Any content of a file gives settings or faults, never another exception."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_proxy.config.files import read_document
from tornado_proxy.config.loading import read_config
from tornado_proxy.config.validation import check
from tornado_proxy.domain.errors import ConfigError

VALID: dict[str, Any] = {
    "listen": {"host": "127.0.0.1", "port": 8080, "reuse_port": False},
    "admin": {"host": "127.0.0.1", "port": 8081, "token": {"env": "PATH"}, "hosts": ["proxy.example"]},
    "providers": {
        "openai": {"base_url": "https://api.openai.com", "api_key": {"env": "PATH"}, "ca_file": "ca.pem"},
        "anthropic": {"base_url": "https://api.anthropic.com", "api_key": {"file": "key"}, "region": "us"},
    },
    "pricing": {"path": "prices.yaml", "surcharge_rate": "0.05"},
    "ledger": {"url": "sqlite:///ledger.db", "fsync": True},
    "projects": [
        {
            "id": "0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10",
            "name": "first",
            "api_keys": [{"id": "7d0e8a72-0c55-4c0f-9a5b-7f1f1f0f2a11", "secret": {"env": "PATH"}}],
            "members": [{"user": "a@example.com", "permissions": ["can_use_llm_proxy"], "admin": True}],
            "providers": {"openai": {"api_key": {"env": "PATH"}}},
            "models": ["openai/*"],
        }
    ],
    "streams": {"on_client_disconnect": "drain", "drain_limit_s": 1, "drain_max": 1, "connect_timeout_s": 0.5},
    "limits": {"max_body_mb": 1, "max_streams": 1},
    "shutdown": {"drain_s": 1},
    "models_list": "filtered",
    "forward_headers": ["x-team"],
}


def list_paths(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield path
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield from list_paths(member, (*path, key))


def replace(content: dict[str, Any], path: tuple[str | int, ...], value: object) -> Any:
    if not path:
        return value
    content = copy.deepcopy(content)
    parent: Any = content
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return content


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("any")
    (folder / "ca.pem").write_text("")
    (folder / "key").write_text("sk-1234\n")
    (folder / "prices.yaml").write_text(
        "provider: openai\nmodels:\n  m:\n    status: active\n    endpoints: [/v1/embeddings]\n    rates:\n"
        "      - {unit: per_million_tokens, prices: {input_tokens: '1'}, source: a page, checked: 2026-01-01}\n"
    )
    return folder


#: Reading files takes longer on a busy machine, so no deadline.
without_deadline = settings(deadline=None)


@without_deadline
@given(path=st.sampled_from(list(list_paths(VALID))), value=values)
def test_any_value_anywhere_gives_settings_or_faults(folder: Path, path: tuple[str | int, ...], value: object) -> None:
    file = folder / "proxy.yaml"
    file.write_text(yaml.safe_dump(replace(VALID, path, value), allow_unicode=True), "utf-8")

    read = read_config(file)

    assert (read.config is None) == bool(read.faults)


@without_deadline
@given(text=st.text(max_size=60) | st.text("-:[]{}&*!|>'\"#%@,? \n\tab01", max_size=60))
def test_any_text_gives_a_document_or_faults(folder: Path, text: str) -> None:
    file = folder / "text.yaml"
    file.write_text(text, "utf-8")

    with contextlib.suppress(ConfigError):
        assert check(read_document(file), "proxy"), "no text this short is a valid configuration"


def test_configuration_of_these_tests_is_valid(folder: Path) -> None:
    file = folder / "valid.yaml"
    file.write_text(yaml.safe_dump(VALID))

    read = read_config(file)

    assert [str(fault) for fault in read.faults] == []
    assert read.config is not None
