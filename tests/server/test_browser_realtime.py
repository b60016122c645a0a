"""A browser page with a client secret holds a realtime session, billed to the participant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import httpx2 as httpx
import openai
import pytest

from tests.browser import find_chromium, open_page
from tests.harness import OPENAI_KEY, ProxyProcess, mint, running_proxy
from tornado_proxy.simulator import Simulator, running_simulator

_PAGE = """<!doctype html><meta charset="utf-8"><title>talk</title><script>
const result = {events: [], text: ""};
const report = () => fetch("/result", {method: "POST", body: JSON.stringify(result)});
const socket = new WebSocket(URL_HERE, ["realtime", "openai-insecure-api-key." + KEY_HERE]);
const send = event => socket.send(JSON.stringify(event));
socket.onmessage = message => {
  const event = JSON.parse(message.data);
  result.events.push(event.type);
  if (event.type === "session.created") {
    result.session = event.session;
    const content = [{type: "input_text", text: "[[sim say=\\"words for a page\\"]]"}];
    send({type: "conversation.item.create", item: {type: "message", role: "user", content}});
    send({type: "response.create", response: {output_modalities: ["text"]}});
  }
  if (event.type === "response.output_text.delta") result.text += event.delta;
  if (event.type === "response.done") {
    result.usage = event.response.usage;
    result.protocol = socket.protocol;
    socket.close(1000);
  }
};
socket.onclose = event => { result.code = event.code; report(); };
</script>"""


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    with running_simulator(Simulator(keys={"openai": OPENAI_KEY})) as url:
        yield url


@pytest.fixture
def proxy(provider: str, tmp_path: Path) -> Iterator[ProxyProcess]:
    find_chromium()
    with running_proxy(tmp_path, provider) as running:
        yield running


def make_page(proxy: ProxyProcess, key: str, query: str) -> str:
    url = f"ws{proxy.base_url.removeprefix('http')}/openai/v1/realtime{query}"
    return _PAGE.replace("URL_HERE", json.dumps(url)).replace("KEY_HERE", json.dumps(key))


def create_client_secret(proxy: ProxyProcess) -> str:
    """Return a client secret, as a server fetches it for its page."""
    with openai.OpenAI(base_url=proxy.base_url + "/openai/v1", api_key=mint(name="grace")) as client:
        made = client.realtime.client_secrets.create(
            session={"type": "realtime", "model": "gpt-realtime", "instructions": "Be brief"}
        )
        return made.value


def test_page_holds_a_session_with_a_client_secret_and_its_participant_is_billed(
    proxy: ProxyProcess, provider: str, tmp_path: Path
) -> None:
    key = create_client_secret(proxy)

    result = open_page(tmp_path, make_page(proxy, key, "?model=gpt-realtime"))

    assert (result["code"], result["protocol"], result["text"]) == (1000, "realtime", "words for a page")
    assert result["session"]["instructions"] == "Be brief"
    (record,) = proxy.read_records(count=2)[1:]
    assert (record["participant"], record["endpoint"], record["basis"]) == ("grace", "/v1/realtime", "reported")
    usage = result["usage"]
    items = {item["type"]: Decimal(item["amount"]) for item in record["line_items"]}
    # gpt-realtime, text: 4 in, 16 out, USD per million tokens
    assert items["input_tokens"] == Decimal(usage["input_token_details"]["text_tokens"]) * 4 / 1_000_000
    assert items["output_tokens"] == Decimal(usage["output_token_details"]["text_tokens"]) * 16 / 1_000_000
    # The provider itself rejects the secret that the page holds.
    headers = {"Authorization": f"Bearer {key}"}
    assert httpx.get(provider + "/v1/models", headers=headers).status_code == 401


def test_page_with_a_forged_client_secret_is_rejected(proxy: ProxyProcess, tmp_path: Path) -> None:
    forged = create_client_secret(proxy)[:-8] + "AAAAAAAA"

    result = open_page(tmp_path, make_page(proxy, forged, "?model=gpt-realtime"))

    assert result["events"] == []
    assert result["code"] == 1006
