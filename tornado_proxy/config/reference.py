"""Generates docs/configuration.md from the schemas.

python -m tornado_proxy.config.reference > docs/configuration.md
"""

from __future__ import annotations

import json
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

`pricing.path` names one file for each provider. `schemas/prices.schema.json` describes their format.
"""

_TYPE_NAMES = {
    "object": "mapping",
    "array": "list",
    "string": "text",
    "boolean": "true or false",
}


def write_reference() -> str:
    """Return the text of docs/configuration.md."""
    parts = [_INTRODUCTION]
    for name, title in (("proxy", "proxy.yaml"), ("projects", "Project files")):
        root = schema(name)
        parts.append(f"\n## {title}\n\n{root['description']}\n\n")
        parts.append("| key | value | meaning |\n|---|---|---|\n")
        parts.extend(_write_rows(root, root, ""))
    parts.append(_PRICES)
    return "".join(parts)


def _write_rows(root: Mapping[str, Any], rule: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """Yield a table row for each key in `rule` and in the rules inside it; `root` has the definitions."""
    required = rule.get("required", ())
    members = dict(rule.get("properties", {}))
    if isinstance(rule.get("additionalProperties"), dict):
        members["NAME"] = rule["additionalProperties"]
    for name, raw in members.items():
        key = f"{prefix}.{name}" if prefix else name
        member = _resolve(root, raw)
        if "items" in member:
            member = {**member, "items": _resolve(root, member["items"])}
        yield f"| `{key}` | {_describe_value(member, required=name in required)} | {_describe_meaning(member)} |\n"
        if "x-type-name" in member:  # a reference to a secret: its keys are the same everywhere
            continue
        yield from _write_rows(root, member, key)
        yield from _write_rows(root, member.get("items", {}), f"{key}[]")


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
        noun, preposition, rest = rule["x-pattern-name"].removeprefix("a ").partition(" of ")
        return f"{noun}s{preposition}{rest}"
    return "mappings" if rule["type"] == "object" else _describe_type(rule)


def _describe_meaning(rule: Mapping[str, Any]) -> str:
    return _escape(str(rule["description"]))


def _escape(cell: str) -> str:
    """Return `cell` with escaped bars: a bar ends a table cell."""
    return cell.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(write_reference())
