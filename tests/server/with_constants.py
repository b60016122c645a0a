"""The server with other values of module constants: timeouts and intervals that no configuration key sets.

The environment variable CONSTANTS holds them as JSON: {"tornado_proxy.app._LAST_RECORDS_S": 60}.
"""

from __future__ import annotations

import importlib
import json
import os

from tornado_proxy.cli import main


def set_constant(name: str, value: float | list[float]) -> None:
    """Set a constant; fail if it does not exist, since the test would then prove nothing."""
    module_name, _, constant = name.rpartition(".")
    module = importlib.import_module(module_name)
    assert hasattr(module, constant), name
    setattr(module, constant, value)


if __name__ == "__main__":
    for name, value in json.loads(os.environ["CONSTANTS"]).items():
        set_constant(name, value)
    main()
