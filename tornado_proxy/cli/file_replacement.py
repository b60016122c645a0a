"""Replaces a file that the operator maintains, such as prices or projects."""

from __future__ import annotations

import os
from pathlib import Path

import click


def replace_file(path: Path, text: str) -> None:
    """Replace a file atomically and keep its mode; create it if it is missing.

    Follow symbolic links, so that a link stays one.

    Raises:
        click.ClickException: the file cannot be written.
    """
    real = path.resolve()
    # In the same folder: os.replace() is atomic within one file system only.
    temporary = real.with_name(f".{real.name}.new")
    try:
        temporary.write_text(text, "utf-8")
        if real.exists():
            temporary.chmod(real.stat().st_mode & 0o777)
        os.replace(temporary, real)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None
