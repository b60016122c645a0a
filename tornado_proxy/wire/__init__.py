"""Bytes of the wire: server-sent events, headers, multipart bodies.  Sans-I/O."""
