"""Benchmarks of the server beside nginx, a plain aiohttp relay and LiteLLM's proxy (docs/performance.md)."""
