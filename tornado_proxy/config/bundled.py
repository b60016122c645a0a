"""Where the schemas and the price files that belong to the program are found.

In an installed wheel they are packages of data (`tornado_proxy.bundled.*`); in a checkout they stand beside the code.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parent.parent


def folder(name: str) -> Path:
    """The folder `conf`, `conf/prices` or `schemas`."""
    installed = _PACKAGE / "bundled" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


@functools.cache
def schema(name: str) -> dict[str, Any]:
    """The JSON Schema `proxy`, `projects`, `prices` or `usage_record`."""
    text = (folder("schemas") / f"{name}.schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded
