"""A page on another origin, in a real browser: fetch, WebSocket and WebRTC call, if its origin is listed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.browser import PageServer, find_chromium, running_page_server
from tests.harness import OPENAI_KEY, ProxyProcess, mint, running_proxy
from tests.webrtc import CallPeer, use_loopback_only
from tornado_proxy.simulator import Simulator, running_simulator

#: The three ways of a page to the proxy, each with its result or its error.
_PAGE = """<!doctype html><meta charset="utf-8"><title>call</title><script>
const proxy = PROXY_HERE, token = TOKEN_HERE, bearer = {"Authorization": "Bearer " + token};
const text = words => ({type: "message", role: "user", content: [{type: "input_text", text: words}]});

async function chat() {
  const messages = [{role: "user", content: "[[sim say=\\"over fetch\\"]]"}];
  const response = await fetch(proxy + "/openai/v1/chat/completions", {
    method: "POST", headers: {...bearer, "Content-Type": "application/json"},
    body: JSON.stringify({model: "gpt-4o-mini", messages}),
  });
  return (await response.json()).choices[0].message.content;
}

const hear = channel => new Promise((resolve, reject) => {
  const events = [];
  channel.onerror = () => reject(new Error("the channel failed"));
  channel.onmessage = message => {
    const event = JSON.parse(message.data);
    events.push(event.type);
    if (event.type === "session.created") {
      channel.send(JSON.stringify({type: "conversation.item.create", item: text("[[sim tokens=50]]")}));
      channel.send(JSON.stringify({type: "response.create", response: {output_modalities: ["text"]}}));
    }
    if (event.type === "response.done") resolve({events, usage: event.response.usage});
  };
});

async function socket() {
  const url = proxy.replace("http", "ws") + "/openai/v1/realtime?model=gpt-realtime";
  const opened = new WebSocket(url, ["realtime", "openai-insecure-api-key." + token]);
  const heard = await hear(opened);
  opened.close(1000);
  return heard;
}

async function call() {
  const peer = new RTCPeerConnection();
  const heard = hear(peer.createDataChannel("oai-events"));
  await peer.setLocalDescription(await peer.createOffer());
  while (peer.iceGatheringState !== "complete") await new Promise(next => setTimeout(next, 10));
  const form = new FormData();
  form.set("sdp", peer.localDescription.sdp);
  form.set("session", JSON.stringify({type: "realtime", model: "gpt-realtime"}));
  const response = await fetch(proxy + "/openai/v1/realtime/calls", {method: "POST", headers: bearer, body: form});
  const id = response.headers.get("location").split("/").pop();
  await peer.setRemoteDescription({type: "answer", sdp: await response.text()});
  const result = {id, status: response.status, ...await heard};
  peer.close();
  return result;
}

(async () => {
  const result = {};
  for (const way of [chat, socket, call]) {
    try { result[way.name] = await way(); } catch (error) { result[way.name] = error.name + ": " + error.message; }
  }
  await fetch("/result", {method: "POST", body: JSON.stringify(result)});
})();
</script>"""


@dataclass(frozen=True)
class Site:
    """A proxy that lists the origin of one page server and not that of the other."""

    proxy: ProxyProcess
    listed: PageServer
    other: PageServer

    def open(self, server: PageServer, folder: Path) -> Any:
        page = _PAGE.replace("PROXY_HERE", json.dumps(self.proxy.base_url)).replace("TOKEN_HERE", json.dumps(mint()))
        return server.open(folder, page)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    find_chromium()
    use_loopback_only(monkeypatch)
    simulator = Simulator(keys={"openai": OPENAI_KEY}, answer_call=CallPeer().answer)
    with (
        running_simulator(simulator) as provider,
        running_page_server() as listed,
        running_page_server() as other,
        running_proxy(tmp_path, provider, cors={"allow_origins": [listed.origin]}) as proxy,
    ):
        yield Site(proxy, listed, other)


def test_page_of_a_listed_origin_uses_fetch_a_websocket_and_a_call(site: Site, tmp_path: Path) -> None:
    result = site.open(site.listed, tmp_path)

    assert result["chat"] == "over fetch"
    assert result["socket"]["events"][0] == "session.created"
    assert result["call"]["status"] == 201
    assert result["call"]["events"][0] == "session.created"
    usage = result["call"]["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (8, 50)
    records = site.proxy.read_session_records(result["call"]["id"], 2)
    # The response: 8 tokens of text at 4 USD and 50 at 16 USD per million, plus 5 %.  The call itself is free.
    assert sorted((record["basis"], record["total"]) for record in records) == [
        ("free", "0"),
        ("reported", "0.000873600000"),
    ]
    assert {record["participant"] for record in records} == {"ada"}


def test_page_of_another_origin_reaches_the_proxy_over_its_websocket_only(site: Site, tmp_path: Path) -> None:
    result = site.open(site.other, tmp_path)

    assert result["chat"] == "TypeError: Failed to fetch"
    assert result["call"] == "TypeError: Failed to fetch"
    # WebSockets have no preflight, and browsers enforce no origin for them: the token decides (docs/tokens.md).
    assert result["socket"]["events"][-1] == "response.done"
    # Neither was sent: the browser asks first.
    assert [record["endpoint"] for record in site.proxy.read_records(count=1)] == ["/v1/realtime"]
