"""WebSocket sessions and realtime calls: handler, relay, meter, sideband."""
