"""A small valid configuration in a folder of its own, which tests break on purpose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tornado_proxy.domain.document import Document

SMALL = """\
providers:
  openai: {base_url: https://api.openai.com, api_key: {env: CONFIG_OPENAI_KEY}}
  anthropic: {base_url: https://api.anthropic.com/v1/, api_key: {file: anthropic.key}}
projects:
  - id: 0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10
    name: first
    api_keys: [{id: 7d0e8a72-0c55-4c0f-9a5b-7f1f1f0f2a11, secret: {env: CONFIG_SIGNING_SECRET}}]
"""

OPENAI_KEY = "sk-config-openai-5Yt"
ANTHROPIC_KEY = "sk-ant-config-8Kw"
SIGNING_SECRET = "signing-secret-of-the-configuration-4711"

WriteConfig = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteConfig:
    """Writes a proxy.yaml next to the secrets that SMALL names, and gives its path."""
    monkeypatch.setenv("CONFIG_OPENAI_KEY", OPENAI_KEY)
    monkeypatch.setenv("CONFIG_SIGNING_SECRET", SIGNING_SECRET)
    key = tmp_path / "anthropic.key"
    key.write_text(ANTHROPIC_KEY + "\n")
    key.chmod(0o600)

    def write_config(text: str) -> Path:
        path = tmp_path / "proxy.yaml"
        path.write_text(text)
        return path

    return write_config


def document(content: object) -> Document:
    """A document without lines."""
    return Document("made.yaml", content)
