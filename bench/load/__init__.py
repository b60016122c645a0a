"""The load generator for streams and WebSockets.  It runs in the benchmark's process, on a core of its own."""
