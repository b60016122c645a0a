"""The process of the dashboard: `python -m tornado_proxy.local.dashboard FD`, started by the local proxy."""

from __future__ import annotations

import signal
import socket
import sys

from tornado_proxy.local.dashboard.app import DashboardApp


def main() -> None:
    """Show the dashboard for the relay at the socket of the inherited file descriptor; exit with an EndStatus."""
    # A signal to the process group is for the relay, which closes the socket then.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    app = DashboardApp(socket.socket(fileno=int(sys.argv[1])))
    app.run()
    sys.exit(app.return_code)


if __name__ == "__main__":
    main()
