"""WebSocket connections to a provider."""
