"""Handlers that are not the proxy: usage API, admin port."""
