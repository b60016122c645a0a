"""The server side of HTTP: connections, limits, response writer."""
