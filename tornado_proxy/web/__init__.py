"""Handlers: HTTP to values, values to HTTP.  No arithmetic, no SQL, no provider's name."""
