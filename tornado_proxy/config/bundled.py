"""Where the schemas and the price files that belong to the program are found.

In an installed wheel they are packages of data (`tornado_proxy.bundled.*`); in a checkout they stand beside the code.
"""

from __future__ import annotations

import functools
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parent.parent


def folder(name: str) -> Path:
    """The folder `conf`, `conf/prices` or `schemas`."""
    installed = _PACKAGE / "bundled" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def conf_path(name: str) -> Path:
    """The file or folder `name` of conf/: "prices", "proxy.yaml"."""
    return folder("conf") / name


@functools.cache
def schema(name: str) -> dict[str, Any]:
    """The JSON Schema `proxy`, `projects` or `prices`; numbers with a point are Decimal, as in documents."""
    text = (folder("schemas") / f"{name}.schema.json").read_text("utf-8")
    # A limit of 0.1 as a binary float is a little more than 0.1, and would refuse a Decimal of 0.1.
    loaded: dict[str, Any] = json.loads(text, parse_float=Decimal)
    return loaded
