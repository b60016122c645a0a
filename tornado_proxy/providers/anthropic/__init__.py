"""Anthropic's API: routes, request fields, usage, errors."""
