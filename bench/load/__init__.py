"""The load generator for streams: it runs in the harness's own process, on a core of its own."""
