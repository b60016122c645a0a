"""Formats of the wire: server-sent events, headers, multipart bodies.  Does no I/O."""
