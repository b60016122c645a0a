"""A browser page with a short-lived key: one conversation over the subprotocol, on the participant's bill."""

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
const told = {events: [], words: ""};
const tell = () => fetch("/result", {method: "POST", body: JSON.stringify(told)});
const socket = new WebSocket(URL_HERE, ["realtime", "openai-insecure-api-key." + KEY_HERE]);
const send = event => socket.send(JSON.stringify(event));
socket.onmessage = message => {
  const event = JSON.parse(message.data);
  told.events.push(event.type);
  if (event.type === "session.created") {
    told.session = event.session;
    const content = [{type: "input_text", text: "[[sim say=\\"words for a page\\"]]"}];
    send({type: "conversation.item.create", item: {type: "message", role: "user", content}});
    send({type: "response.create", response: {output_modalities: ["text"]}});
  }
  if (event.type === "response.output_text.delta") told.words += event.delta;
  if (event.type === "response.done") {
    told.usage = event.response.usage;
    told.protocol = socket.protocol;
    socket.close(1000);
  }
};
socket.onclose = event => { told.code = event.code; tell(); };
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


def page(proxy: ProxyProcess, key: str, query: str) -> str:
    url = f"ws{proxy.base_url.removeprefix('http')}/openai/v1/realtime{query}"
    return _PAGE.replace("URL_HERE", json.dumps(url)).replace("KEY_HERE", json.dumps(key))


def new_key(proxy: ProxyProcess) -> str:
    """What a product's server fetches for its page."""
    with openai.OpenAI(base_url=proxy.base_url + "/openai/v1", api_key=mint(name="grace")) as client:
        made = client.realtime.client_secrets.create(
            session={"type": "realtime", "model": "gpt-realtime", "instructions": "Be brief"}
        )
        return made.value


def test_a_page_holds_a_conversation_with_a_short_lived_key_and_the_ledger_has_it(
    proxy: ProxyProcess, provider: str, tmp_path: Path
) -> None:
    key = new_key(proxy)

    told = open_page(tmp_path, page(proxy, key, "?model=gpt-realtime"))

    assert (told["code"], told["protocol"], told["words"]) == (1000, "realtime", "words for a page")
    assert told["session"]["instructions"] == "Be brief"
    (record,) = proxy.read_records(count=2)[1:]
    assert (record["participant"], record["endpoint"], record["basis"]) == ("grace", "/v1/realtime", "reported")
    usage = told["usage"]
    items = {item["type"]: Decimal(item["amount"]) for item in record["line_items"]}
    # gpt-realtime, text: 4 in, 16 out, a million tokens
    assert items["input_tokens"] == Decimal(usage["input_token_details"]["text_tokens"]) * 4 / 1_000_000
    assert items["output_tokens"] == Decimal(usage["output_token_details"]["text_tokens"]) * 16 / 1_000_000
    # What the page holds is worth nothing at the provider.
    headers = {"Authorization": f"Bearer {key}"}
    assert httpx.get(provider + "/v1/models", headers=headers).status_code == 401


def test_a_page_with_a_key_of_its_own_making_is_not_let_in(proxy: ProxyProcess, tmp_path: Path) -> None:
    forged = new_key(proxy)[:-8] + "AAAAAAAA"

    told = open_page(tmp_path, page(proxy, forged, "?model=gpt-realtime"))

    assert told["events"] == []
    assert told["code"] == 1006
