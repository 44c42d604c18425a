"""Our own door, /judge: a Program as JSON in, its verdict as JSON out. What cannot be granted is refused."""

from __future__ import annotations

import ast
import base64
from dataclasses import asdict, replace
from typing import Any

from ..verdict import Call, Limits, Program, Verdict
from .asked import Asked, Case
from .fields import Fields, bad
from .toolchains import KNOWN

_DEFAULT = Limits()
_WISHES = ("cpu_seconds", "wall_seconds", "memory_mb", "processes")


def read(fields: Fields, ceiling: Limits) -> Asked:
    """One request."""
    program = Program(
        fields.text("source"),
        entry_point=fields.text("entry_point", None),
        test=fields.text("test", None),
        calls=tuple(
            _call(Fields(one, f"{fields.place}calls[{n}]")) for n, one in enumerate(fields.items("calls", []))
        ),
        stdin=fields.text("stdin", "").encode("utf-8", "surrogatepass"),
        context=fields.text("context", ""),
        together=fields.flag("together"),
        language=fields.text("language", "python"),
        arguments=fields.texts("arguments"),
        files=fields.files("files"),
        collect=fields.texts("collect"),
    )
    limits = _limits(Fields(fields.table("limits"), f"{fields.place}limits"), ceiling)
    fields.close()
    if "calls" in fields.values and not program.calls:
        bad(f"{fields.place}calls is empty: nothing would be judged")
    if program.language not in KNOWN:
        bad(f"{fields.place}language {program.language!r} is none of {', '.join(KNOWN)}")
    return Asked((Case.of(program, limits),), lambda verdicts: answer(verdicts[0]))


def _call(fields: Fields) -> Call:
    """`expected` is JSON; `literal` is Python, for what JSON has no word for: tuples, sets, bytes."""
    expression = fields.text("expression")
    literal = fields.text("literal", None)
    expected = fields.values.get("expected")
    fields.read.add("expected")
    fields.close()
    if (literal is None) == ("expected" not in fields.values):
        bad(f"{fields.place}expected (JSON) or {fields.place}literal (Python) must be given, one of them")
    if literal is None:
        return Call(expression, expected)
    try:
        return Call(expression, ast.literal_eval(literal))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        bad(f"{fields.place}literal is no Python literal: {type(error).__name__}")


def _limits(fields: Fields, ceiling: Limits) -> Limits:
    """The default limits, with those the client names, up to the server's."""
    found = {}
    for name in _WISHES:
        most = getattr(ceiling, name)
        default = min(getattr(_DEFAULT, name), most)
        wish = fields.number(name, default)
        if wish > most:
            bad(f"{fields.place}{name} of {wish:g} is above this server's {most:g}")
        found[name] = type(most)(wish)
    fields.close()
    return replace(ceiling, **found)


def answer(verdict: Verdict) -> dict[str, Any]:
    """All of a verdict; files as base64 by name."""
    values = {**asdict(verdict), "files": {f.name: base64.b64encode(f.data).decode() for f in verdict.files}}
    del values["name"]
    return {"verdict": verdict.name, "passed": verdict.passed, **values}
