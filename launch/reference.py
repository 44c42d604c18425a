"""The reference of a run file as Markdown, written from the schema so that it cannot drift from the code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Tree = Mapping[str, Any]

HEAD = """# Every key of a run file

Written by `make docs` from the schema; the schema itself is printed by `temper config schema`.
A run file is YAML. Unknown keys are refused, with the nearest known one named. `--set section.key=value` overrides one
value; `base: other.yaml` starts from one other file, whose values this file overrides. `temper config show RUN.yaml`
prints each effective value and where it came from.
"""


def reference(schema: Tree) -> str:
    """Markdown for the JSON schema of a Run: one table a section, in the order of the file."""
    sections = schema["$defs"]
    lines = [HEAD, "## Top level", "", schema.get("description", ""), "", *_table(schema, sections)]
    told: set[str] = set()
    for name, place in _sections_in_order(schema, sections):
        if name in told:
            continue
        told.add(name)
        section = sections[name]
        lines += ["", f"## {place}", "", section.get("description", ""), "", *_table(section, sections)]
    return "\n".join(lines) + "\n"


def _sections_in_order(schema: Tree, sections: Tree, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, field in schema["properties"].items():
        name, many = _section_of(field)
        if name is None:
            continue
        place = f"{prefix}{key}{'[]' if many else ''}"
        yield name, f"`{place}`"
        yield from _sections_in_order(sections[name], sections, f"{place}.")


def _section_of(field: Tree) -> tuple[str | None, bool]:
    """Name of the section a field holds, and whether it holds a list of them."""
    for choice in (field, *field.get("anyOf", ()), *field.get("allOf", ())):
        if "$ref" in choice:
            return choice["$ref"].rpartition("/")[2], False
        if "$ref" in choice.get("items", {}):
            return choice["items"]["$ref"].rpartition("/")[2], True
    return None, False


def _table(section: Tree, sections: Tree) -> Iterator[str]:
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    required = section.get("required", ())
    for key, field in section["properties"].items():
        default = "required" if key in required else _default(field)
        meaning = " ".join(field.get("description", "").split()).replace("|", "\\|")
        yield f"| `{key}` | {_type(field)} | {default} | {meaning} |"


def _default(field: Tree) -> str:
    value = field.get("default")
    if value is None or isinstance(value, dict):
        return "" if not value or len(str(value)) > 40 else f"`{json.dumps(value)}`"
    return f"`{json.dumps(value)}`"


def _type(field: Tree) -> str:
    name, many = _section_of(field)
    if name is not None:
        return "list of sections" if many else "section"
    if "anyOf" in field:
        parts = [_type(choice) for choice in field["anyOf"]]
        return " or ".join(part for part in parts if part != "nothing") + (
            " or empty" if "nothing" in parts else ""
        )
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kind = str(field.get("type", "value"))
    kind = {"array": "list", "object": "mapping", "null": "nothing", "boolean": "true/false"}.get(kind, kind)
    return kind + _bounds(field)


def _bounds(field: Tree) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {field[word]:,}" for word, sign in signs.items() if field.get(word, 2**31) < 2**31 - 1]
    return f" ({', '.join(bounds)})" if bounds else ""
