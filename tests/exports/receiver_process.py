"""A receiver of events that keeps each id once, and kills itself at the worst moments.

Run as `python -m tests.exports.receiver_process PORT DATABASE DIE_AFTER WHEN`: after DIE_AFTER accepted events it dies,
by SIGKILL, `before` it stores the next one or `after` that, in both cases without a response.  0: never.
The secret is in the environment variable RECEIVER_SECRET.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from standardwebhooks import Webhook


def main(port: int, database: str, die_after: int, when: str) -> None:
    """Serve until killed."""
    db = sqlite3.connect(database, isolation_level=None)
    db.execute("CREATE TABLE IF NOT EXISTS events (id TEXT PRIMARY KEY, body TEXT)")
    db.execute("CREATE TABLE IF NOT EXISTS attempts (id TEXT)")
    webhook = Webhook(os.environ["RECEIVER_SECRET"])
    accepted = 0

    def die(moment: str) -> None:
        if die_after and accepted >= die_after and when == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            nonlocal accepted
            body = self.rfile.read(int(self.headers["Content-Length"]))
            event = webhook.verify(body, dict(self.headers))
            assert event["id"] == self.headers["webhook-id"] == self.headers["Idempotency-Key"]
            db.execute("INSERT INTO attempts VALUES (?)", (event["id"],))
            die("before")
            db.execute("INSERT OR IGNORE INTO events VALUES (?, ?)", (event["id"], body.decode()))
            die("after")
            accepted += 1
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    HTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4])
