"""`python -m tornado_proxy` is the `tornado-proxy` command."""

from tornado_proxy.cli import main

if __name__ == "__main__":
    main()
