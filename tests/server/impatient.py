"""The server with less patience for requests that do not come, so that a test need not wait for minutes."""

from __future__ import annotations

from tornado_proxy.cli import main
from tornado_proxy.gateway import client_port
from tornado_proxy.http_server import body_timeout

client_port._SWEEP_S = 0.1
client_port._IDLE_S = 2.0
body_timeout._SILENCE_S = 0.5

if __name__ == "__main__":
    main()
