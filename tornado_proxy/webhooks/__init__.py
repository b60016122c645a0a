"""Webhooks: messages of the proxy to other programs, signed as Standard Webhooks describes."""
