"""The proxy with short timeouts for idle connections and stalled request bodies, so that tests take seconds."""

from __future__ import annotations

from tornado_proxy.cli import main
from tornado_proxy.http_server import body_timeout, server

server._SWEEP_INTERVAL_S = 0.1
server._IDLE_TIMEOUT_S = 2.0
body_timeout._BODY_TIMEOUT_S = 0.5

if __name__ == "__main__":
    main()
