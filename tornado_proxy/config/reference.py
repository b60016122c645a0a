"""Generates docs/configuration.md from the schemas.

python -m tornado_proxy.config.reference > docs/configuration.md
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from tornado_proxy.config.bundled import schema
from tornado_proxy.providers.registry import PROVIDERS

_INTRODUCTION = """\
# Configuration

<!-- Made from schemas/ by: python -m tornado_proxy.config.reference > docs/configuration.md -->

The proxy reads one YAML file, `conf/proxy.yaml` or the file that `--config` names, and the files that it refers to:
projects, prices and secrets. `tornado-proxy check --config FILE` reports all faults of all files, each with file, line,
key and rule, and exits with 1 if there are any. `tornado-proxy serve` does not start with such a fault, and a reload
keeps the active configuration.

[conf/proxy.yaml](../conf/proxy.yaml) and [conf/projects.yaml](../conf/projects.yaml) show the usual settings with
comments. A setting inside others is written with dots, `[]` for each entry of a list, and `NAME` for a key that you
choose: `projects[].members[].user`.

A minimal configuration:

```yaml
# yaml-language-server: $schema=../schemas/proxy.schema.json
providers:
  openai: {base_url: https://api.openai.com, api_key: {env: OPENAI_API_KEY}}
projects: projects.yaml
```

## Rules for all files

- Unknown and duplicate keys are faults.
- Relative paths start at the folder of the file that contains them.
- YAML anchors, aliases, tags and merge keys are not supported. Numbers with a decimal point are exact decimals, dates
  are text.
- Secrets are references, `{env: NAME}` or `{file: PATH}`. A literal secret is a fault, which does not repeat it. So
  is a secret that is missing, empty or not printable ASCII without spaces: the server never starts without a key that
  its configuration names. White space around a secret, such as a final line end, is removed.
- A secret file that every user can write is a fault. One that every user can read is a warning of `tornado-proxy check`
  only, because container runtimes often mount secrets that way; elsewhere run `chmod 0640`.
- SIGHUP or `POST /reload` on the admin port activates all changed files, or none if there is a fault. A changed setting
  that is marked *restart* makes the reload fail.
"""

_PRICES = """
## Price files

`pricing.path` names a price file, or a folder with a file for each provider ([pricing.md](pricing.md)).
`schemas/prices.schema.json` describes each member.
"""

_TABLE_HEAD = "\n| key | value | meaning |\n|---|---|---|\n"

_TYPE_NAMES = {
    "object": "mapping",
    "array": "list",
    "string": "text",
    "boolean": "true or false",
}


#: A block of rows is described once if it is as long as this or longer.
_MIN_SHARED_ROWS = 3


def write_reference() -> str:
    """Return the text of docs/configuration.md."""
    parts = [_INTRODUCTION]
    known: dict[tuple[str, ...], str] = {}
    for name, title, prefix in (("proxy", "proxy.yaml", ""), ("projects", "Project files", "projects[]")):
        root = schema(name)
        parts.append(f"\n## {title}\n\n{root['description']}\n")
        rule = _resolve(root, root["properties"]["projects"]["items"]) if prefix else root
        parts.extend(_write_sections(root, rule, prefix, known))
    parts.append(_PRICES)
    return "".join(parts)


def _write_sections(
    root: Mapping[str, Any], rule: Mapping[str, Any], prefix: str, known: dict[tuple[str, ...], str]
) -> Iterator[str]:
    """Yield a table of the keys of `rule`, which link to a section for each key that has keys of its own."""
    sections = []
    yield _TABLE_HEAD
    for key, member, required in _list_members(root, rule, prefix):
        rows = list(_write_children(root, member, key, known))
        yield _write_row(f"[`{key}`](#{_anchor(key)})" if rows else f"`{key}`", member, required=required)
        if rows:
            sections.append(f"\n### {key}\n{_TABLE_HEAD}{''.join(rows)}")
    yield from sections


def _write_rows(
    root: Mapping[str, Any], rule: Mapping[str, Any], prefix: str, known: dict[tuple[str, ...], str]
) -> Iterator[str]:
    """Yield a table row for each key in `rule` and in the rules inside it; `root` has the definitions."""
    for key, member, required in _list_members(root, rule, prefix):
        yield _write_row(f"`{key}`", member, required=required)
        yield from _write_children(root, member, key, known)


def _write_children(
    root: Mapping[str, Any], member: Mapping[str, Any], key: str, known: dict[tuple[str, ...], str]
) -> Iterator[str]:
    """Yield the rows of the keys inside a key, or one row that names the key with the same ones.

    `known` has the key of each block of rows that the page has.
    """
    if "x-type-name" in member:  # a reference to a secret: its keys are the same everywhere
        return
    inner, items = member, member.get("items", {})
    block = (*_write_rows(root, inner, "", {}), *_write_rows(root, items, "[]", {}))
    same = known.setdefault(block, key) if len(block) >= _MIN_SHARED_ROWS else key
    if same != key:
        yield f"| `{key}...` | | The same keys as those of [`{same}`](#{_anchor(same.partition('.')[0])}). |\n"
        return
    yield from _write_rows(root, inner, key, known)
    yield from _write_rows(root, items, f"{key}[]", known)


def _list_members(
    root: Mapping[str, Any], rule: Mapping[str, Any], prefix: str
) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """Yield the full key, the rule and "is required" of each key in `rule`."""
    members = dict(rule.get("properties", {}))
    if isinstance(rule.get("additionalProperties"), dict):
        members["NAME"] = rule["additionalProperties"]
    for name, raw in members.items():
        member = _resolve(root, raw)
        if "items" in member:
            member = {**member, "items": _resolve(root, member["items"])}
        yield f"{prefix}.{name}" if prefix else name, member, name in rule.get("required", ())


def _write_row(key: str, member: Mapping[str, Any], *, required: bool) -> str:
    return f"| {key} | {_describe_value(member, required=required)} | {_describe_meaning(member)} |\n"


def _anchor(heading: str) -> str:
    """Return the anchor that GitHub makes from a heading."""
    return re.sub(r"[^\w-]", "", heading.lower())


def _resolve(root: Mapping[str, Any], rule: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `rule` with the definition that its `$ref` names; its own keywords win."""
    reference = rule.get("$ref")
    return {**root["$defs"][reference.removeprefix("#/$defs/")], **rule} if reference else rule


def _describe_value(rule: Mapping[str, Any], *, required: bool) -> str:
    """Return type, limits and default as a table cell."""
    parts = [str(rule.get("x-type-name") or _describe_type(rule))]
    if "minimum" in rule and "maximum" in rule:
        parts.append(f"{rule['minimum']} to {rule['maximum']}")
    elif "minimum" in rule:
        parts.append(f"{rule['minimum']} or more")
    if "propertyNames" in rule:
        names = " or ".join(f"`{provider.name}`" for provider in PROVIDERS)
        parts.append(f"each key is {rule['propertyNames'].get('x-pattern-name', names)}")
    if required:
        parts.append("required")
    if "default" in rule:
        parts.append(f"default `{json.dumps(rule['default'])}`")
    if rule.get("x-restart"):
        parts.append("*restart*")
    return _escape(", ".join(parts))


def _describe_type(rule: Mapping[str, Any]) -> str:
    if "enum" in rule:
        return " or ".join(f"`{value}`" for value in rule["enum"])
    if "x-pattern-name" in rule:
        return str(rule["x-pattern-name"])
    name = _TYPE_NAMES.get(rule["type"], rule["type"])
    return f"list of {_describe_items(rule['items'])}" if name == "list" else name


def _describe_items(rule: Mapping[str, Any]) -> str:
    """Return the type of a list's items in the plural: "a pattern of the form x" as "patterns of the form x"."""
    if "x-pattern-name" in rule:
        name = re.sub("^(?:a|one) ", "", rule["x-pattern-name"])
        return re.sub("(?= of | without |$)", "s", name, count=1)
    return "mappings" if rule["type"] == "object" else _describe_type(rule)


def _describe_meaning(rule: Mapping[str, Any]) -> str:
    """Return the description as a table cell, with links to the pages that it names."""
    return _escape(re.sub(r"\bdocs/(\w+\.md)", r"[\1](\1)", str(rule["description"])))


def _escape(cell: str) -> str:
    """Return `cell` with escaped bars: a bar ends a table cell."""
    return cell.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(write_reference())
