"""The state of a configuration's ledger, for commands that change it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

from tornado_proxy.cli.options.config_lookup import exit_on_errors, find_ledger
from tornado_proxy.domain.errors import CallerError
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.database import StoreError
from tornado_proxy.state.store import StateStore


@contextlib.contextmanager
def open_state_store(config: Path) -> Iterator[StateStore]:
    """Yield the store of the configuration's ledger; print an error and exit with status 1 if the command fails."""
    with exit_on_errors():
        store = StateStore(make_backend(find_ledger(config, None), fsync=True))
        try:
            yield store
        except CallerError as error:
            raise click.ClickException(error.message) from None
        except StoreError as error:
            raise click.ClickException(f"the state cannot be used: {error}") from None
        finally:
            store.close()
