"""Names what differs between two configurations, for the log line of a reload.  Names and counts only, no values."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from tornado_proxy.config.settings import Settings
from tornado_proxy.domain.identity import ApiKey, Project, ProviderKey

#: Changes that are named; a log line has its limits, and a longer list is a new configuration.
MAX_CHANGES = 50

#: The keys in proxy.yaml of settings that have another name in Settings.
_KEYS = {
    "public.url": "listen.public_url",
    "public.trusted_proxies": "listen.trusted_proxies",
    "public.allow_origins": "cors.allow_origins",
}


def describe_changes(
    old: tuple[Settings, Mapping[str, Project]], new: tuple[Settings, Mapping[str, Project]]
) -> list[str]:
    """Return a text for each difference: `streams.drain_max`, `project ID: api_keys (+kid)`, `project ID added`."""
    changes = [*_describe_settings(old[0], new[0]), *_describe_projects(old[1], new[1])]
    if len(changes) > MAX_CHANGES:
        return [*changes[:MAX_CHANGES], f"and {len(changes) - MAX_CHANGES} more"]
    return changes


def _describe_settings(old: Settings, new: Settings) -> list[str]:
    changes: list[str] = []
    for field in fields(Settings):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if field.name == "providers":
            changes += _describe_providers("providers", before, after)
        elif is_dataclass(before) and is_dataclass(after):
            changes += [f"{field.name}.{name}" for name in _list_changed(before, after)]
        elif before != after:
            changes.append(field.name)
    return [_KEYS.get(name, name) for name in changes]


def _describe_projects(old: Mapping[str, Project], new: Mapping[str, Project]) -> list[str]:
    changes = [f"project {name} added" for name in new if name not in old]
    changes += [f"project {name} removed" for name in old if name not in new]
    for name, project in new.items():
        if name in old and old[name] != project:
            changes.append(f"project {name}: {', '.join(_describe_project(old[name], project))}")
    return changes


def _describe_project(old: Project, new: Project) -> list[str]:
    changes: list[str] = []
    for name in _list_changed(old, new):
        if name == "api_keys":
            changes.append(f"api_keys ({_describe_keys(_by_id(old.api_keys), _by_id(new.api_keys))})")
        elif name == "members":
            changes.append(f"members ({len(new.members)}, were {len(old.members)})")
        elif name == "providers":
            changes += _describe_providers("providers", old.providers, new.providers)
        else:
            changes.append(name)
    return changes


def _describe_providers(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the changes of the providers of the server or of a project."""
    changes = [f"{path}.{name} added" for name in new if name not in old]
    changes += [f"{path}.{name} removed" for name in old if name not in new]
    for name, provider in new.items():
        for member in _list_changed(old[name], provider) if name in old else ():
            keys = member == "keys"
            shown = f" ({_describe_keys(_by_name(old[name].keys), _by_name(provider.keys))})" if keys else ""
            changes.append(f"{path}.{name}.{member}{shown}")
    return changes


def _describe_keys(old: Mapping[str, Hashable], new: Mapping[str, Hashable]) -> str:
    """Return the names of keys that were added (+), removed (-) or changed (~); "order" if none was."""
    marks = [f"+{name}" for name in new if name not in old]
    marks += [f"-{name}" for name in old if name not in new]
    marks += [f"~{name}" for name in new if name in old and new[name] != old[name]]
    return " ".join(marks) or "order"


def _by_id(keys: Iterable[ApiKey]) -> Mapping[str, Hashable]:
    return {key.id: key for key in keys}


def _by_name(keys: Iterable[ProviderKey]) -> Mapping[str, Hashable]:
    return {key.name: (key.fingerprint, key.discount, tuple(sorted(key.provider_ids.items()))) for key in keys}


def _list_changed(old: Any, new: Any) -> list[str]:
    """Return the names of the fields in which two values of one dataclass differ."""
    return [field.name for field in fields(new) if getattr(old, field.name) != getattr(new, field.name)]
