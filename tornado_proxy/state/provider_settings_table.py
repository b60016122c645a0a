"""The table provider_settings: the provider key and base URL of a project, encrypted (domain/key_ring.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from tornado_proxy.domain.key_ring import Subject
from tornado_proxy.domain.state import StoredSettings
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect
from tornado_proxy.ledger.rows import format_time

_SELECT_ALL = (
    "SELECT project_id, provider, api_key, base_url, version, changed_at, changed_by FROM provider_settings "
    "ORDER BY project_id, provider"
)
_UPSERT = (
    "INSERT INTO provider_settings (project_id, provider, api_key, base_url, version, changed_at, changed_by) "
    "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (project_id, provider) DO UPDATE SET api_key = excluded.api_key, "
    "base_url = excluded.base_url, version = excluded.version, changed_at = excluded.changed_at, "
    "changed_by = excluded.changed_by"
)
_DELETE = "DELETE FROM provider_settings WHERE project_id = ? AND provider = ?"
_SELECT_VERSION = "SELECT value FROM meta WHERE key = 'state_generation'"


def _create_settings(sql: Dialect) -> str:
    return f"""
CREATE TABLE IF NOT EXISTS provider_settings (
    project_id {sql.text} NOT NULL,
    provider {sql.text} NOT NULL,
    api_key {sql.text} NOT NULL,
    base_url {sql.text},
    version {sql.number} NOT NULL,
    changed_at {sql.text} NOT NULL,
    changed_by {sql.text} NOT NULL,
    PRIMARY KEY (project_id, provider)
) {sql.keyed_table_end};
"""


#: Each table, and the function that returns the SQL which makes it.
TABLES: Mapping[str, Callable[[Dialect], str]] = {"provider_settings": _create_settings}


def read_all(db: Database) -> dict[Subject, StoredSettings]:
    """Return all settings.

    Raises:
        ValueError: a row was not written by this program.
    """
    return {
        (str(project_id), str(provider)): StoredSettings(
            api_key=str(api_key),
            base_url=None if base_url is None else str(base_url),
            version=int(str(version)),
            changed_at=datetime.fromisoformat(str(changed_at)),
            changed_by=str(changed_by),
        )
        for project_id, provider, api_key, base_url, version, changed_at, changed_by in db.fetch_rows(_SELECT_ALL)
    }


def find(db: Database, subject: Subject) -> StoredSettings | None:
    """Return the settings of a project for a provider, None if it has none."""
    return read_all(db).get(subject)


def write(db: Database, subject: Subject, settings: StoredSettings) -> None:
    """Store settings in place of those that the project has for the provider."""
    db.run(
        _UPSERT,
        (
            *subject,
            settings.api_key,
            settings.base_url,
            settings.version,
            format_time(settings.changed_at),
            settings.changed_by,
        ),
    )


def delete(db: Database, subject: Subject) -> None:
    """Remove the settings of a project for a provider."""
    db.run(_DELETE, subject)


def read_version(db: Database) -> int:
    """Return the generation of the change that the transaction makes."""
    ((generation,),) = db.fetch_rows(_SELECT_VERSION)
    return int(str(generation))
