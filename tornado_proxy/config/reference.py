"""Writes docs/configuration.md out of the schemas, so that the page cannot lag behind them.

python -m tornado_proxy.config.reference > docs/configuration.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from tornado_proxy.config.bundled import schema

_INTRODUCTION = """\
# Configuration

<!-- Made from schemas/ by: python -m tornado_proxy.config.reference > docs/configuration.md -->

The proxy reads one YAML file, `conf/proxy.yaml` unless `--config` names another, and what that file leads to: projects,
prices and secrets. `tornado-proxy check --config FILE` tells every fault of all of them at once, with file, line, key
and rule, and exits with 1 if there is one; `tornado-proxy serve` refuses to start on the same faults, a reload keeps
what is in use.

The least that works:

```yaml
# yaml-language-server: $schema=../schemas/proxy.schema.json
providers:
  openai: {base_url: https://api.openai.com, api_key: {env: OPENAI_API_KEY}}
projects: projects.yaml
```

## Rules for all files

- Unknown keys are faults, and so is a key that stands twice.
- Relative paths start at the folder of the file that they stand in.
- YAML without anchors, aliases, tags and merge keys: what a file says is what stands in it. Numbers with a point are
  exact decimals, dates are text.
- Secrets are references, `{env: NAME}` or `{file: PATH}`. A literal is a fault, which does not repeat it. A secret that
  cannot be found, is empty or is not one word of printable ASCII is a fault: the server never starts without a key that
  its configuration names. White space around a secret, such as a file's last line end, is dropped.
- A secret file that every user of the machine can write is a fault. One that every user can read is a warning of
  `tornado-proxy check` only, since files that a container gets as secrets are often so; `chmod 0640` it elsewhere.
- SIGHUP or `POST /reload` on the admin port puts changed files in use, all of them or, where there is a fault, none. A
  setting that is marked *restart* keeps the whole reload from being taken.
"""

_PRICES = """
## Price files

`pricing.path` leads to one file a provider. Their form is `schemas/prices.schema.json`, which describes each member.
"""


def write_reference() -> str:
    """The text of docs/configuration.md."""
    parts = [_INTRODUCTION]
    for name, title in (("proxy", "proxy.yaml"), ("projects", "Project files")):
        whole = schema(name)
        parts.append(f"\n## {title}\n\n{whole['description']}\n\n")
        parts.append("| key | value | meaning |\n|---|---|---|\n")
        parts.extend(_rows(whole, whole, ""))
    parts.append(_PRICES)
    return "".join(parts)


def _rows(whole: Mapping[str, Any], rule: Mapping[str, Any], at: str) -> Iterator[str]:
    required = rule.get("required", ())
    for name, raw in rule.get("properties", {}).items():
        key = f"{at}.{name}" if at else name
        found = _resolved(whole, raw)
        yield f"| `{key}` | {_value(found, required=name in required)} | {_meaning(found)} |\n"
        if "x-type-words" in found:
            continue
        yield from _rows(whole, found, key)
        yield from _rows(whole, _resolved(whole, found.get("items", {})), f"{key}[]")


def _resolved(whole: Mapping[str, Any], rule: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = rule.get("$ref")
    return {**whole["$defs"][reference.removeprefix("#/$defs/")], **rule} if reference else rule


def _value(rule: Mapping[str, Any], *, required: bool) -> str:
    """Type, limits and default in a table cell; a bar would end the cell."""
    words = [str(rule.get("x-type-words") or _type(rule))]
    if "minimum" in rule and "maximum" in rule:
        words.append(f"{rule['minimum']} to {rule['maximum']}")
    elif "minimum" in rule:
        words.append(f"{rule['minimum']} or more")
    if required:
        words.append("required")
    if "default" in rule:
        words.append(f"default `{json.dumps(rule['default'])}`")
    if rule.get("x-restart"):
        words.append("*restart*")
    return ", ".join(words).replace("|", "\\|")


def _type(rule: Mapping[str, Any]) -> str:
    if "enum" in rule:
        return " or ".join(f"`{one}`" for one in rule["enum"])
    if "x-pattern-words" in rule:
        return str(rule["x-pattern-words"])
    names = {
        "object": "mapping",
        "array": "list",
        "string": "text",
        "integer": "whole number",
        "boolean": "true or false",
    }
    kind = names.get(rule["type"], rule["type"])
    return f"list of {_items(rule['items'])}" if kind == "list" else kind


def _items(rule: Mapping[str, Any]) -> str:
    if "x-pattern-words" in rule:
        kind, such_as, examples = rule["x-pattern-words"].removeprefix("a ").partition(" such as ")
        return f"{kind}s{such_as}{examples}"
    return "mappings" if rule["type"] == "object" else _type(rule)


def _meaning(rule: Mapping[str, Any]) -> str:
    return str(rule["description"]).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(write_reference())
