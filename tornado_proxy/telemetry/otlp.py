"""Sends spans and metrics by OTLP over HTTP, with the packages of OpenTelemetry.

The extra `otel` installs them; this module is imported in the telemetry process only.  The variables
OTEL_EXPORTER_OTLP_* and OTEL_RESOURCE_ATTRIBUTES are read as OpenTelemetry describes them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from tornado_proxy import __version__
from tornado_proxy.telemetry.measurements import Measurement
from tornado_proxy.telemetry.names import DURATION_BUCKETS_S, TOKEN_BUCKETS, Names
from tornado_proxy.telemetry.spans import Kind, Span

_SCOPE = InstrumentationScope("tornado_proxy", __version__)
_KINDS = {Kind.SERVER: SpanKind.SERVER, Kind.CLIENT: SpanKind.CLIENT}
_DEFAULT_SERVICE = "tornado-proxy"


class OtlpSender:
    """Sends to one receiver."""

    def __init__(self, endpoint: str, naming: Names) -> None:
        """Make the exporters; `endpoint` is the URL before /v1/traces and /v1/metrics."""
        base = endpoint.rstrip("/")
        self._resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", _DEFAULT_SERVICE)})
        self._spans = OTLPSpanExporter(f"{base}/v1/traces")
        self._metrics = OTLPMetricExporter(f"{base}/v1/metrics")
        # As PeriodicExportingMetricReader does; it would export by its own clock and tell nobody of a failure.
        self._reader = InMemoryMetricReader(
            preferred_temporality=self._metrics._preferred_temporality,
            preferred_aggregation=self._metrics._preferred_aggregation,
        )
        self._provider = MeterProvider((self._reader,), resource=self._resource, shutdown_on_exit=False)
        self._instruments = _make_instruments(self._provider, naming)

    def send_spans(self, spans: Sequence[Span]) -> bool:
        """Send the sampled spans; return False if the receiver has not taken them."""
        sampled = [self._make_span(span) for span in spans if span.sampled]
        return not sampled or self._spans.export(sampled) is SpanExportResult.SUCCESS

    def record(self, measurements: Sequence[Measurement]) -> None:
        """Add measurements to the metrics."""
        for measurement in measurements:
            self._instruments[measurement.metric](measurement.value, measurement.attributes)

    def send_metrics(self) -> bool:
        """Send the metrics; return False if the receiver has not taken them."""
        data = self._reader.get_metrics_data()
        return data is None or self._metrics.export(data) is MetricExportResult.SUCCESS

    def _make_span(self, span: Span) -> ReadableSpan:
        flags = TraceFlags(TraceFlags.SAMPLED)
        context = SpanContext(span.trace_id, span.span_id, is_remote=False, trace_flags=flags)
        parent = SpanContext(span.trace_id, span.parent_id, is_remote=span.kind is Kind.SERVER, trace_flags=flags)
        return ReadableSpan(
            span.name,
            context=context,
            parent=parent if span.parent_id else None,
            resource=self._resource,
            attributes=span.attributes,
            kind=_KINDS[span.kind],
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=_SCOPE,
        )


def _make_instruments(provider: MeterProvider, naming: Names) -> dict[str, Any]:
    """Return the function that records a value of each metric."""
    meter = provider.get_meter("tornado_proxy", __version__)
    seconds = {
        name: meter.create_histogram(name, "s", explicit_bucket_boundaries_advisory=DURATION_BUCKETS_S).record
        for name in (naming.duration, naming.first_chunk)
    }
    if naming.token_usage:
        usage = meter.create_histogram(naming.token_usage, "{token}", explicit_bucket_boundaries_advisory=TOKEN_BUCKETS)
        return {**seconds, naming.token_usage: usage.record}
    return {**seconds, **{name: meter.create_counter(name, "{token}").add for name in naming.token_counters.values()}}
