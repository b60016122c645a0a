"""Long runs against the real server: python -m tests.stress leaving | stalled | storm | callers [--help]

Each prints a table and the promises that were broken; the exit code is 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from tests.stress import disconnecting_clients, distinct_callers, killed_server, stalled_clients
from tests.stress.report import Report


def _run_disconnecting(options: argparse.Namespace) -> Report:
    size = disconnecting_clients.DisconnectingRun(
        options.clients, options.complete, options.concurrency, options.policy
    )
    return asyncio.run(disconnecting_clients.run(size))


def _run_stalled(options: argparse.Namespace) -> Report:
    size = stalled_clients.StalledRun(options.clients, options.megabytes, options.seconds)
    return asyncio.run(stalled_clients.run(size))


def _run_killed(options: argparse.Namespace) -> Report:
    return killed_server.run(options.rounds)


def _run_callers(options: argparse.Namespace) -> Report:
    return asyncio.run(distinct_callers.run(distinct_callers.CallersRun(options.callers, options.concurrency)))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the runs and their sizes."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.stress", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    runs = parser.add_subparsers(required=True, metavar="RUN")

    leaving = runs.add_parser("leaving", help="clients that disconnect in every phase, among clients that stay")
    leaving.add_argument("--clients", type=int, default=10_000, help="clients that disconnect (default 10000)")
    leaving.add_argument("--complete", type=int, default=2_500, help="clients that stay (default 2500)")
    leaving.add_argument("--at-once", dest="concurrency", type=int, default=200, help="clients at a time (default 200)")
    leaving.add_argument("--policy", choices=("drain", "cancel"), default="cancel", help="streams.on_client_disconnect")
    leaving.set_defaults(run=_run_disconnecting)

    stalled = runs.add_parser("stalled", help="clients that stop reading a long stream, and continue later")
    stalled.add_argument("--clients", type=int, default=8, help="clients that stall (default 8)")
    stalled.add_argument("--megabytes", type=int, default=80, help="megabytes that each reads (default 80)")
    stalled.add_argument("--seconds", type=float, default=5.0, help="seconds that all of them stall (default 5)")
    stalled.set_defaults(run=_run_stalled)

    storm = runs.add_parser("storm", help="kill -9 of the server under load, again and again")
    storm.add_argument("--rounds", type=int, default=50, help="times that it is killed (default 50)")
    storm.set_defaults(run=_run_killed)

    callers = runs.add_parser("callers", help="a request of each of many callers, who have budgets and limits")
    callers.add_argument("--callers", type=int, default=60_000, help="callers (default 60000)")
    callers.add_argument("--at-once", dest="concurrency", type=int, default=32, help="callers at a time (default 32)")
    callers.set_defaults(run=_run_callers)
    return parser


def main() -> int:
    options = make_parser().parse_args()
    report: Report = options.run(options)
    os.write(1, f"{report.format()}\n".encode())
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
