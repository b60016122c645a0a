"""Spans and metrics of a running server, at a real OTLP receiver that is killed and started again."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.harness import (
    KEY_ID,
    PROJECT,
    SECRETS,
    ProxyProcess,
    mint,
    run_serve,
    running_proxy,
    wait_until,
    write_config,
)
from tests.replay_provider import ProviderResponse, running_replay_provider
from tests.server.chat import CHAT, CHAT_RESPONSE, post_chat
from tests.telemetry.otlp_receiver import Received, running_receiver

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PROMPT = "tell me the secret of the prompt"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def read_autogroup(pid: str) -> str:
    """Return the session of a process with its priority, "" if the kernel has none."""
    file = Path("/proc") / pid / "autogroup"
    return file.read_text() if file.exists() else ""


def wait_for_spans(file: Path, count: int) -> Received:
    wait_until(lambda: len(Received(file).spans) >= count, f"{count} spans have arrived")
    return Received(file)


def send(proxy: ProxyProcess, **headers: str) -> str:
    """Send a request with a prompt; return its id."""
    body = {**CHAT, "messages": [{"role": "user", "content": PROMPT}]}
    response = httpx.post(
        proxy.base_url + "/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {mint()}", **headers}
    )
    assert response.status_code == 200
    return str(response.headers["llm-proxy-request-id"])


def test_each_request_has_its_spans_once_also_after_the_receiver_was_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seconds for which the exporter itself tries again.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    port, file = free_port(), tmp_path / "received.jsonl"
    telemetry = {"otlp_endpoint": f"http://127.0.0.1:{port}"}
    with running_replay_provider() as provider, running_proxy(tmp_path, provider.url, telemetry=telemetry) as proxy:
        provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
        with running_receiver(port, file) as receiver:
            wait_until(lambda: "otlp" in read_cursors(proxy), "the cursor is at the end of the ledger")
            first = send(proxy, traceparent=TRACEPARENT)
            wait_for_spans(file, 2)
            receiver.kill()
            missed = [send(proxy) for _ in range(3)]
            proxy.wait_for_log("telemetry cannot be sent")
            assert "llm_proxy_otlp_failing 1.0" in proxy.fetch_admin("/metrics")[1]
        with running_receiver(port, file):
            proxy.wait_for_log("telemetry is sent again")
            last = send(proxy)
            wait_until(lambda: count_requests(file) == "5", "the metrics of five requests have arrived")
            received = wait_for_spans(file, 10)
            assert "llm_proxy_otlp_failing 0.0" in proxy.fetch_admin("/metrics")[1]

    ids = [span["spanId"] for span in received.spans]
    assert len(ids) == len(set(ids)) == 10
    servers = [span for span in received.spans if span["kind"] == "SPAN_KIND_SERVER"]
    assert [span["attributes"]["llm_proxy.request.id"] for span in servers] == [first, *missed, last]
    (tokens,) = [
        point
        for point in received.metrics["gen_ai.client.token.usage"]
        if point["attributes"]["gen_ai.token.type"] == "input"
    ]
    # Five requests of 10 input tokens each.
    assert (tokens["count"], tokens["sum"]) == ("5", 50.0)


def count_requests(file: Path) -> str:
    """Return the number of requests in the metric of their durations as it was last received."""
    (duration,) = Received(file).metrics["gen_ai.client.operation.duration"]
    return str(duration["count"])


def read_cursors(proxy: ProxyProcess) -> set[str]:
    with sqlite3.connect(f"file:{proxy.ledger}?mode=ro", uri=True) as db:
        return {name for (name,) in db.execute("SELECT name FROM cursors")}


def test_span_joins_the_clients_trace_and_has_no_prompt_token_or_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http,gen_ai_latest_experimental")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=collector")
    port, file = free_port(), tmp_path / "received.jsonl"
    telemetry = {"otlp_endpoint": f"http://127.0.0.1:{port}"}
    with (
        running_receiver(port, file),
        running_replay_provider() as provider,
        running_proxy(tmp_path, provider.url, telemetry=telemetry) as proxy,
    ):
        provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
        wait_until(lambda: "otlp" in read_cursors(proxy), "the cursor is at the end of the ledger")
        request_id = send(proxy, traceparent=TRACEPARENT)
        received = wait_for_spans(file, 2)

    server, client = received.spans
    assert server["name"] == "POST /v1/chat/completions"
    assert client["name"] == "chat gpt-4o-mini"
    # Base64 of the ids, as protobuf's JSON has them.
    assert server["traceId"] == client["traceId"] == "CvdlGRbNQ92ESOshHIAxnA=="
    assert server["parentSpanId"] == "t61rcWkgMzE="
    assert client["parentSpanId"] == server["spanId"]
    assert int(server["endTimeUnixNano"]) >= int(server["startTimeUnixNano"])
    assert server["attributes"] == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "llm_proxy.request.id": request_id,
        "llm_proxy.project.id": PROJECT,
        "llm_proxy.room": server["attributes"]["llm_proxy.room"],
        "llm_proxy.participant": server["attributes"]["llm_proxy.participant"],
        "llm_proxy.client": server["attributes"]["llm_proxy.client"],
        "llm_proxy.outcome": "completed",
        "llm_proxy.cost.basis": "reported",
        "llm_proxy.cost.total": "0.000004725000",
    }
    first_chunk = client["attributes"].pop("gen_ai.response.time_to_first_chunk")
    assert 0 < first_chunk < 10
    assert client["attributes"] == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.response.model": "gpt-4o-mini",
        "gen_ai.response.id": "c",
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
    }
    for secret in (PROMPT, KEY_ID, mint().split(".")[0], *SECRETS.values()):
        assert secret not in received.text
    assert received.lines[0]["headers"]["x-api-key"] == "collector"
    wait_until(lambda: bool(Received(file).metrics), "metrics have arrived")
    assert set(Received(file).metrics) == {
        "gen_ai.client.inference.duration",
        "gen_ai.client.inference.time_to_first_chunk",
        "gen_ai.client.inference.usage.input_tokens",
        "gen_ai.client.inference.usage.output_tokens",
    }


def test_server_that_stops_sends_the_last_requests(tmp_path: Path) -> None:
    port, file = free_port(), tmp_path / "received.jsonl"
    telemetry = {"otlp_endpoint": f"http://127.0.0.1:{port}"}
    with running_receiver(port, file), running_replay_provider() as provider:
        provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
        with running_proxy(tmp_path, provider.url, telemetry=telemetry) as proxy:
            wait_until(lambda: "otlp" in read_cursors(proxy), "the cursor is at the end of the ledger")
            request_id = post_chat(proxy).headers["llm-proxy-request-id"]
        spans = Received(file).spans

    assert [span["attributes"].get("llm_proxy.request.id") for span in spans] == [request_id, None]


@pytest.mark.skipif(not read_autogroup("self"), reason="a feature of Linux that may be off")
def test_session_of_the_telemetry_process_has_the_lowest_priority_too() -> None:
    command = [sys.executable, "-m", "tornado_proxy.telemetry.process"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:  # waits for its setup
        try:
            pid = str(process.pid)
            wait_until(lambda: read_autogroup(pid).endswith("nice 19\n"), "the session has the lowest priority")
            assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19
        finally:
            process.kill()


def test_server_names_the_extra_that_telemetry_needs(tmp_path: Path) -> None:
    # A package of this name that has no exporter hides the installed one.
    (tmp_path / "path/opentelemetry").mkdir(parents=True)
    (tmp_path / "path/opentelemetry/__init__.py").write_text("")
    config = write_config(tmp_path, "http://127.0.0.1:9", telemetry={"otlp_endpoint": "http://127.0.0.1:4318"})

    result = run_serve(config, PYTHONPATH=str(tmp_path / "path"))

    assert result.returncode == 1
    assert "telemetry.otlp_endpoint: needs the packages of OpenTelemetry" in result.stderr
