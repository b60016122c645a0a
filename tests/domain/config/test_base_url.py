from __future__ import annotations

import pytest

from tornado_proxy.domain.config.base_url import find_base_url_fault, normalize_base_url

PATHS = ("/v1/chat/completions", "/v1/models")


@pytest.mark.parametrize("url", ["https://api.example.com", "http://127.0.0.1:9/proxy/", "https://[::1]/v1"])
def test_usable_url_has_no_fault(url: str) -> None:
    assert find_base_url_fault(url, PATHS) is None


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("ftp://example.com", "http or https"),
        ("https://", "http or https"),
        ("https://example.com:x", "http or https"),
        ("https://[::1", "http or https"),
        ("https://exa mple.com", "http or https"),
        ("https://ex\u00e4mple.com", "http or https"),
        ("https://example.com/?a=1", "no query"),
        ("https://example.com/#a", "no query"),
        ("https://user:password@example.com", "credentials"),
        ("https://example.com/v1/models", "remove /v1/models"),
    ],
)
def test_fault_is_named_without_the_url(url: str, rule: str) -> None:
    fault = find_base_url_fault(url, PATHS)

    assert fault is not None
    assert rule in fault
    assert "password" not in fault


@pytest.mark.parametrize("url", ["https://a.example/", "https://a.example/v1", "https://a.example/v1/"])
def test_version_and_slash_at_the_end_are_removed(url: str) -> None:
    assert normalize_base_url(url) == "https://a.example"
