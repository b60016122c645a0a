"""Alerts: signed messages to webhooks, each once in its period over all processes of a ledger."""
