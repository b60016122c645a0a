"""The telemetry process: sends the changes of a ledger by OTLP until its standard input ends.

    python -m tornado_proxy.telemetry.process

It is a process of its own with a low priority, because building a span takes longer than relaying some requests, and
would hold the interpreter lock of the server.  The first line of standard input is its setup; each line of standard
output is a report.  It has no provider keys.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
from pathlib import Path

from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.telemetry.follower import Control, Follower
from tornado_proxy.telemetry.names import OPT_IN_VARIABLE, choose_names
from tornado_proxy.telemetry.otlp import OtlpSender
from tornado_proxy.telemetry.setup import read_address

#: Added to the priority of the process: on a core that the server keeps busy it gets a hundredth of the time; with 10
#: it was a tenth.  The ledger is the queue until the server leaves more.
_NICENESS = 19

#: The priority of the session of this process, on Linux.
_AUTOGROUP = Path("/proc/self/autogroup")


def main() -> None:
    """Send until standard input ends."""
    _lower_priority()
    # The packages log each failed attempt; the reports say it once.
    logging.disable(logging.CRITICAL)
    setup = json.loads(sys.stdin.readline())
    ended = threading.Event()
    threading.Thread(target=_wait_for_end, args=(ended,), daemon=True).start()
    naming = choose_names(os.environ.get(OPT_IN_VARIABLE, ""))
    sender = OtlpSender(setup["endpoint"], naming)
    Follower(make_backend(read_address(setup)), sender, naming, Control(ended.wait, _report)).run()


def _lower_priority() -> None:
    """Take the time that the server leaves.

    Linux compares the priority of a process with those of its own session, and the priorities of sessions with each
    other (sched(7), "The autogroup feature").  This process has a session of its own.
    """
    os.nice(_NICENESS)
    with contextlib.suppress(OSError):  # a kernel without the feature
        _AUTOGROUP.write_text(str(_NICENESS))


def _wait_for_end(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


def _report(sent: int, failure: str) -> None:
    print(json.dumps({"sent": sent, "failure": failure}), flush=True)  # noqa: T201  # the server reads it


if __name__ == "__main__":
    main()
