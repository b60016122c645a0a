"""A minimal valid configuration, which tests change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tornado_proxy.domain.config.document import Document

SMALL = """\
providers:
  openai: {base_url: https://api.openai.com, api_key: {env: CONFIG_OPENAI_KEY}}
  anthropic: {base_url: https://api.anthropic.com/v1/, api_key: {file: anthropic.key}}
projects:
  - id: 0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10
    name: first
    api_keys: [{id: 7d0e8a72-0c55-4c0f-9a5b-7f1f1f0f2a11, secret: {env: CONFIG_SIGNING_SECRET}}]
"""

#: A small price file: the bundled ones take half a second to read, and few tests need them.
FEW_PRICES = "pricing: {path: prices.yaml}\n"
PRICES = """\
provider: openai
models:
  gpt-4o-mini:
    status: active
    endpoints: [/v1/chat/completions]
    rates:
      - {unit: per_million_tokens, prices: {input_tokens: "0.15", output_tokens: "0.6"}, source: a, checked: 2026-01-01}
"""

OPENAI_KEY = "sk-config-openai-5Yt"
ANTHROPIC_KEY = "sk-ant-config-8Kw"
SIGNING_SECRET = "signing-secret-of-the-configuration-4711"

WriteConfig = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteConfig:
    """Return a function that writes a proxy.yaml next to the secrets that SMALL names, and returns its path."""
    monkeypatch.setenv("CONFIG_OPENAI_KEY", OPENAI_KEY)
    monkeypatch.setenv("CONFIG_SIGNING_SECRET", SIGNING_SECRET)
    key = tmp_path / "anthropic.key"
    key.write_text(ANTHROPIC_KEY + "\n")
    key.chmod(0o600)

    (tmp_path / "prices.yaml").write_text(PRICES)

    def write_config(text: str) -> Path:
        path = tmp_path / "proxy.yaml"
        path.write_text(text + (FEW_PRICES if _can_take_pricing(text) else ""))
        return path

    return write_config


def _can_take_pricing(text: str) -> bool:
    """Return True if a section `pricing` can be appended to `text`."""
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return False
    return isinstance(content, dict) and "pricing" not in content and text.endswith("\n") and "\n{" not in f"\n{text}"


def document(content: object) -> Document:
    """Return a document without lines."""
    return Document("made.yaml", content)
