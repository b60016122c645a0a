"""tornado-proxy: an LLM proxy that swaps its own tokens for provider keys and bills every call."""

__version__ = "0.2.0.dev0"
