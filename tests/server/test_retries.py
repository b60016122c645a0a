"""Requests that the official SDKs send again are recorded as repetitions of the first one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.harness import TIMEOUT_S, ProxyProcess, mint, running_proxy
from tornado_proxy.simulator import Simulator, running_simulator

MODEL = "gpt-4o-mini"


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[ProxyProcess]:
    with running_simulator(Simulator()) as url, running_proxy(tmp_path, url) as running:
        yield running


def test_retry_of_the_sdk_names_the_request_that_failed(proxy: ProxyProcess) -> None:
    messages = [{"role": "user", "content": "[[sim status=500]] hi"}]
    headers = {"Idempotency-Key": "order-17"}

    with openai.OpenAI(base_url=f"{proxy.base_url}/v1", api_key=mint(), timeout=TIMEOUT_S, max_retries=1) as client:
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model=MODEL, messages=messages, extra_headers=headers)
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}])

    first, second, other = proxy.read_records(count=3)
    assert [first["status"], second["status"], other["status"]] == [500, 500, 200]
    assert (first["retry_of"], first["retry_count"]) == (None, None)
    assert (second["retry_of"], second["retry_count"]) == (first["request_id"], "1")
    assert (other["retry_of"], other["retry_count"]) == (None, None)
