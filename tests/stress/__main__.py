"""Long runs against the real server: python -m tests.stress leaving | stalled | storm [--help]

Each prints a table and the promises that were broken; the exit code is 1 if there were any.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from tests.stress import disconnecting_clients, killed_server, stalled_clients
from tests.stress.report import Report


def _leaving(options: argparse.Namespace) -> Report:
    wanted = disconnecting_clients.Run(options.clients, options.complete, options.at_once, options.policy)
    return asyncio.run(disconnecting_clients.run(wanted))


def _stalled(options: argparse.Namespace) -> Report:
    return asyncio.run(stalled_clients.run(stalled_clients.Run(options.clients, options.megabytes, options.seconds)))


def _storm(options: argparse.Namespace) -> Report:
    return killed_server.run(options.rounds)


def parser() -> argparse.ArgumentParser:
    """The three runs and their sizes."""
    top = argparse.ArgumentParser(
        prog="python -m tests.stress", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    runs = top.add_subparsers(required=True, metavar="RUN")

    one = runs.add_parser("leaving", help="clients that leave in every phase, among clients that stay")
    one.add_argument("--clients", type=int, default=10_000, help="how many leave (default 10000)")
    one.add_argument("--complete", type=int, default=2_500, help="how many stay (default 2500)")
    one.add_argument("--at-once", type=int, default=200, help="how many there are at a time (default 200)")
    one.add_argument("--policy", choices=("drain", "cancel"), default="cancel", help="streams.on_client_disconnect")
    one.set_defaults(run=_leaving)

    two = runs.add_parser("stalled", help="clients that stop reading a long stream, and read on later")
    two.add_argument("--clients", type=int, default=8, help="how many stall (default 8)")
    two.add_argument("--megabytes", type=int, default=80, help="how much each reads (default 80)")
    two.add_argument("--seconds", type=float, default=5.0, help="how long none of them reads (default 5)")
    two.set_defaults(run=_stalled)

    three = runs.add_parser("storm", help="kill -9 of the server under load, again and again")
    three.add_argument("--rounds", type=int, default=50, help="how often it is killed (default 50)")
    three.set_defaults(run=_storm)
    return top


def main() -> int:
    options = parser().parse_args()
    report: Report = options.run(options)
    os.write(1, f"{report.text()}\n".encode())
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
