"""Collects request bodies and has them read, by the event loop or by a worker process."""
