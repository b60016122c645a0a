"""/v1/realtime: sessions over WebSockets, short-lived keys, calls and translations."""
