"""/v1/responses over HTTP and over WebSockets."""
