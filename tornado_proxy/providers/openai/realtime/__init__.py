"""/v1/realtime and the endpoints below it."""
