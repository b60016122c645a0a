"""HTTP requests: handler, relay, response rewriting."""
