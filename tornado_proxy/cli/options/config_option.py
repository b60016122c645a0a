"""The option --config of commands that read the configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

_Decorated = TypeVar("_Decorated", bound=Callable[..., object])


def config_option(purpose: str) -> Callable[[_Decorated], _Decorated]:
    """Return the option, which passes a path; `purpose` is its help."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        default=Path("conf/proxy.yaml"),
        show_default=True,
        help=purpose,
    )
