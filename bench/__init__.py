"""Measures the server against nginx, a plain aiohttp relay and LiteLLM's proxy; docs/performance.md explains it."""
