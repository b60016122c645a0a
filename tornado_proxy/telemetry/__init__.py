"""OpenTelemetry: spans and metrics of ended requests, built from the ledger by a process of its own."""
