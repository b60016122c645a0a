"""The examples of docs/sdk.md run as they are, against the proxy, and its error messages are those of the program."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

import tornado_proxy.sdk
from tests.docs.pages import DOCS, fences, rows
from tests.harness import ProxyProcess
from tests.sdk.test_extra import run_without
from tornado_proxy.sdk import OpenAIResponsesAdapter, get_async_openai_client, get_openai_client

PAGE = DOCS / "sdk.md"
EXAMPLES = list(fences(PAGE, "python"))


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
@pytest.mark.usefixtures("variables")
def test_example_runs_and_is_billed(
    number: int,
    proxy: ProxyProcess,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    known = len(proxy.read_records())

    try:
        exec(compile(EXAMPLES[number], PAGE.name, "exec"), {"__name__": "__main__"})  # noqa: S102  # the page's program
    finally:
        logging.getLogger("tornado_proxy.sdk.http").setLevel(logging.NOTSET)

    assert capsys.readouterr().out + caplog.text
    assert len(proxy.read_records(count=known + 1)) > known


def test_page_has_an_example_of_each_helper() -> None:
    text = "\n".join(EXAMPLES)
    assert [name for name in tornado_proxy.sdk.__all__ if f"{name}(" not in text] == []


def read_error(call: Callable[[], object]) -> str:
    with pytest.raises((ValueError, TypeError)) as raised:
        call()
    return f"{type(raised.value).__name__}: {raised.value}"


def test_messages_on_the_page_are_those_of_the_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = run_without("openai", "from tornado_proxy.sdk import get_openai_client").stderr.splitlines()[-1]
    no_url = read_error(get_openai_client)
    monkeypatch.setenv("MESHAGENT_API_URL", "http://127.0.0.1:1")
    no_token = read_error(get_openai_client)
    monkeypatch.setenv("MESHAGENT_TOKEN", "t")
    other_kind = read_error(lambda: list(OpenAIResponsesAdapter("m", client=get_async_openai_client()).stream("hi")))
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.openai.com/v1")
    provider = read_error(get_openai_client)

    listed = [row[0].strip("`") for row in rows(PAGE) if row[0].startswith("`") and "Error: " in row[0]]

    assert len(listed) == 5
    for message, shown in zip([missing, no_url, no_token, provider, other_kind], listed, strict=True):
        assert message.startswith(shown)
