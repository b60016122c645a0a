"""Finds the schemas and price files that are part of the program.

A wheel holds them as data packages (`tornado_proxy.bundled.*`); in a checkout they are next to the package.
"""

from __future__ import annotations

import functools
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parent.parent


def find_folder(name: str) -> Path:
    """Return the path of the folder `conf`, `conf/prices` or `schemas`."""
    installed = _PACKAGE / "bundled" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def conf_path(name: str) -> Path:
    """Return the path of the file or folder `name` in conf/, such as "prices" or "proxy.yaml"."""
    return find_folder("conf") / name


@functools.cache
def schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema `proxy`, `projects` or `prices`."""
    text = (find_folder("schemas") / f"{name}.schema.json").read_text("utf-8")
    # Decimal, as in documents: the binary float 0.1 is a little more than 0.1, so a minimum of 0.1 would reject
    # Decimal("0.1").
    loaded: dict[str, Any] = json.loads(text, parse_float=Decimal)
    return loaded
