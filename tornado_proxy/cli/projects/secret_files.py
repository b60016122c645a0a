"""Writes secrets to files that only their owner can read."""

from __future__ import annotations

import os
from pathlib import Path

import click


def write_secret(file: Path, secret: str) -> None:
    """Write a secret to a new file with mode 0600.

    Raises:
        click.ClickException: the file exists, or cannot be written.
    """
    # O_EXCL: never overwrite a secret.  The mode is set at creation, so the file is never readable by others.
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise click.ClickException(f"{file} exists; name a new file, so that no key is overwritten") from None
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror}") from None
    with os.fdopen(descriptor, "w") as opened:
        opened.write(secret + "\n")
