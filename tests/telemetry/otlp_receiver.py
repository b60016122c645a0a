"""A receiver of OTLP over HTTP, as a process that a test can kill: it appends what it gets to a file.

python -m tests.telemetry.otlp_receiver PORT FILE
"""

from __future__ import annotations

import contextlib
import gzip
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.harness import ROOT, TIMEOUT_S

_MESSAGES = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}


class _Handler(BaseHTTPRequestHandler):
    file: Path

    def do_GET(self) -> None:
        self.respond()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        message = _MESSAGES[self.path]()
        message.ParseFromString(body)
        line = {"path": self.path, "headers": dict(self.headers), "message": MessageToDict(message)}
        with self.file.open("a") as out:
            out.write(json.dumps(line) + "\n")
        self.respond()

    def respond(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def running_receiver(port: int, file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a receiver at a port until the end of the block, or until it is killed."""
    process = subprocess.Popen([sys.executable, "-m", "tests.telemetry.otlp_receiver", str(port), str(file)], cwd=ROOT)
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=TIMEOUT_S).close()
                break
            assert time.monotonic() < deadline, "the receiver does not start"
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()


class Received:
    """What a receiver has got so far."""

    def __init__(self, file: Path) -> None:
        text = file.read_text() if file.exists() else ""
        self.text = text
        self.lines: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]

    @property
    def spans(self) -> list[dict[str, Any]]:
        """All spans, with their attributes as a dict."""
        found = [
            span
            for line in self.lines
            for resource in line["message"].get("resourceSpans", ())
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]
        return [{**span, "attributes": read_attributes(span["attributes"])} for span in found]

    @property
    def metrics(self) -> dict[str, list[dict[str, Any]]]:
        """The data points of each metric as they were last received, with their attributes as a dict."""
        points: dict[str, list[dict[str, Any]]] = {}
        for line in self.lines:
            for resource in line["message"].get("resourceMetrics", ()):
                for metric in (metric for scope in resource["scopeMetrics"] for metric in scope["metrics"]):
                    data = metric.get("histogram") or metric["sum"]
                    points[metric["name"]] = [
                        {**point, "attributes": read_attributes(point["attributes"])} for point in data["dataPoints"]
                    ]
        return points


def read_attributes(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return attributes as a dict; integers are text in the JSON of protobuf."""
    found = {}
    for attribute in attributes:
        ((kind, value),) = attribute["value"].items()
        found[attribute["key"]] = int(value) if kind == "intValue" else value
    return found


if __name__ == "__main__":
    _Handler.file = Path(sys.argv[2])
    HTTPServer(("127.0.0.1", int(sys.argv[1])), _Handler).serve_forever()
