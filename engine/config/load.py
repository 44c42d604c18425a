"""From a YAML file to a Run: `base:` file, `--set` overrides, nearest-name hints, and where each value came from."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from engine.config.run import Run
from engine.errors import WishError

Tree = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A Run and, for every value in it, where that value was written (dotted key to place)."""

    run: Run
    origins: dict[str, str]


class _NumbersAsWritten(yaml.SafeLoader):
    """YAML 1.2 numbers: PyYAML reads `1e-4` as text, since YAML 1.1 wants a dot and a sign."""


_NumbersAsWritten.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)$"),
    list("-+0123456789."),
)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read a Run.

    Args:
        path: the YAML file; it may name one other file under `base:`, which may not name a further one.
        overrides: `a.b=value` texts, values in YAML syntax; they win over the file.

    Raises:
        WishError: missing or malformed file, unknown key (nearest named), wrong type, bad override.
    """
    path = Path(path)
    tree, origins = _read(path)
    base = tree.pop("base", None)
    origins.pop("base", None)
    if base is not None:
        base_path = path.parent / str(base)
        base_tree, base_origins = _read(base_path)
        if "base" in base_tree:
            raise WishError(
                f"{base_path} is the base of {path} and names a base itself ({base_tree['base']})",
                "a base file may not have a base: merge the two files",
            )
        tree = _merge(base_tree, tree)
        origins = base_origins | origins
    for override in overrides:
        _override(tree, origins, override)
    try:
        run = Run.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, path, origins) from None
    return Loaded(run, origins)


def read_tree(path: str | Path) -> Tree:
    """A YAML file other than a run file, read as those are: numbers such as `1e-4`, no key twice, errors in a sentence.

    Raises:
        WishError: missing or malformed file.
    """
    return _read(Path(path))[0]


def dump(run: Run) -> str:
    """The effective Run as YAML that `load` reads back to an equal value."""
    return yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def show(loaded: Loaded) -> Iterator[tuple[str, str, str]]:
    """Every effective value: (dotted key, value as JSON, where it came from)."""
    for key, value in _leaves(loaded.run.model_dump(mode="json")):
        yield key, json.dumps(value, ensure_ascii=False), loaded.origins.get(key, "default")


def schema() -> dict[str, Any]:
    """The JSON schema of a run file, for editors."""
    value = Run.model_json_schema()
    value["properties"]["base"] = {"type": "string", "description": "One other run file to start from."}
    return value


def _read(path: Path) -> tuple[Tree, dict[str, str]]:
    if path.is_dir():
        raise WishError(f"{path} is a folder", "name the YAML file of the run")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        siblings = [str(file) for file in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        near = difflib.get_close_matches(str(path), siblings, n=1, cutoff=0.5)
        hint = (
            f"did you mean {near[0]}?" if near else "check the path (it is relative to the working directory)"
        )
        raise WishError(f"there is no run file {path}", hint) from None
    except (OSError, UnicodeDecodeError) as error:
        raise WishError(f"{path} cannot be read: {error}", "name a readable UTF-8 YAML file") from None
    try:
        node = yaml.compose(text, Loader=_NumbersAsWritten)
        tree = yaml.load(text, Loader=_NumbersAsWritten)
        origins: dict[str, str] = {}
        _places(node, "", path, origins)
    except RecursionError:
        raise WishError(
            f"{path} is nested too deep, or holds itself", "write it without that anchor"
        ) from None
    except ValueError as error:
        raise WishError(f"{path} holds a value that cannot be read: {error}", "write it plainly") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise WishError(
            f"{place} is not valid YAML: {problem}", "mend that line (check colons and indentation)"
        ) from None
    if not isinstance(tree, dict):
        raise WishError(
            f"{path} holds {_kind(tree)}, not a mapping of sections", "start with `model:`, `data:` ..."
        )
    return tree, origins


def _places(node: yaml.Node | None, prefix: str, path: Path, origins: dict[str, str]) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key_node, value_node in node.value:
        key, place = f"{prefix}{key_node.value}", f"{path}:{key_node.start_mark.line + 1}"
        if key in seen:
            raise WishError(f"{place} sets {key} a second time", "keep one of the two")
        seen.add(key)
        # Only values have an origin: a section's own line says nothing about the keys it leaves out.
        if isinstance(value_node, yaml.MappingNode) and value_node.value:
            _places(value_node, f"{key}.", path, origins)
        else:
            origins[key] = place


def _merge(base: Tree, over: Tree) -> Tree:
    merged = dict(base)
    for key, value in over.items():
        mine = merged.get(key)
        merged[key] = _merge(mine, value) if isinstance(mine, dict) and isinstance(value, dict) else value
    return merged


def _override(tree: Tree, origins: dict[str, str], text: str) -> None:
    key, separator, raw = text.partition("=")
    key = key.strip()
    if not separator or not key:
        raise WishError(f"--set {text!r} has no `=`", "write it as --set section.key=value")
    try:
        value = yaml.load(raw, Loader=_NumbersAsWritten)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise WishError(
            f"--set {text[:200]!r}: the value is not valid YAML", "quote it, e.g. --set 'a.b=\"x: y\"'"
        ) from None
    parents = key.split(".")
    here = tree
    for number, parent in enumerate(parents[:-1]):
        inner = here.setdefault(parent, {})
        if isinstance(inner, list):
            raise WishError(f"--set {text!r} reaches into the list {parent}", "set the whole list as YAML")
        if inner is None:
            inner = here[parent] = {}
        if not isinstance(inner, dict):
            raise WishError(
                f"--set {text!r}: {'.'.join(parents[: number + 1])} is a value, not a section",
                "drop the rest of the key",
            )
        here = inner
    here[parents[-1]] = value
    for known in [name for name in origins if name.startswith(f"{key}.")]:
        del origins[known]
    written = _leaves(value, f"{key}.") if isinstance(value, dict) and value else [(key, value)]
    origins.update((name, "--set") for name, _ in written)


def _explain(error: ValidationError, path: Path, origins: Mapping[str, str]) -> WishError:
    """The first problem of a validation error as one sentence (the rest is counted)."""
    problems = error.errors()
    first = problems[0]
    key = ".".join(str(part) for part in first["loc"])
    parts = key.split(".")
    enclosing = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    place = next((origins[name] for name in enclosing if name in origins), str(path))
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _known_keys(first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(known))}"
        return WishError(f"{place}: unknown key {key}{more}", hint)
    if first["type"] == "missing":
        return WishError(f"{place}: {key} is missing{more}", "add it; `temper config schema` lists every key")
    said = first["msg"].removeprefix("Value error, ")
    message = said[0].lower() + said[1:]
    return WishError(f"{place}: {key} is {first['input']!r}{more}", message)


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    section: Any = Run
    for part in location:
        if isinstance(part, int):
            continue
        field = section.model_fields[part]
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        section = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return list(section.model_fields)


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
