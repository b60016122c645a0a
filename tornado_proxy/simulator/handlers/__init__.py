"""Base handlers and request handling that both simulated APIs share: credentials, pacing, errors, model lists."""
