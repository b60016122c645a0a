"""`tornado-proxy`, and `python -m tornado_proxy`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    # The status line runs every few hundred milliseconds: click alone would take as long as the rest of it.
    if sys.argv[1:2] == ["statusline"] and not {"-h", "--help"} & set(sys.argv):
        from tornado_proxy.local.statusline import run

        sys.exit(run(sys.argv[2:]))
    from tornado_proxy.cli import main as run_command

    run_command()


if __name__ == "__main__":
    main()
