"""/v1/realtime: sessions over WebSocket, client secrets and calls over HTTP."""
