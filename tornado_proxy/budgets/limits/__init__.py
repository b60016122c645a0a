"""Limits of requests, tokens and streams."""
