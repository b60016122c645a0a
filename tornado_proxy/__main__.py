"""`tornado-proxy`, and `python -m tornado_proxy`."""

from __future__ import annotations

import gc
import sys

#: New objects after which the youngest ones are searched for cycles.  The objects of a start are modules, schemas and
#: prices, which stay: with Python's own threshold, 700, a tenth of the start's CPU time is spent on searching them.
_COLLECTION_THRESHOLD = 10_000


def main() -> None:
    """Run the command line."""
    gc.set_threshold(_COLLECTION_THRESHOLD)
    # The status line runs every few hundred milliseconds: click alone would take as long as the rest of it.
    if sys.argv[1:2] == ["statusline"] and not {"-h", "--help"} & set(sys.argv):
        from tornado_proxy.local.statusline import run

        sys.exit(run(sys.argv[2:]))
    from tornado_proxy.cli import main as run_command

    run_command()


if __name__ == "__main__":
    main()
