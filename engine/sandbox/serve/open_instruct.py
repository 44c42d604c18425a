"""The requests of open-instruct's code verifier: one program, many tests, a list of 0 and 1 for an answer.

Its data sets hold large tests as a pickle, compressed and in base64. A pickle can name code to be run, so only plain
data is taken from it: its instructions are checked first, and it is opened by a reader that finds no class.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import pickle
import pickletools
import zlib
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from ..verdict import Limits, Program, Verdict
from .asked import MOST_CASES, Asked, Case
from .fields import Fields, bad
from .refusal import Refusal

_DEFAULT_MB = Limits().memory_mb
_LARGEST = 64 << 20
_PLAIN = set(
    "PROTO FRAME STOP MARK MEMOIZE BINPUT BINGET LONG_BINGET NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 BINFLOAT "
    "SHORT_BINUNICODE BINUNICODE BINUNICODE8 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS EMPTY_TUPLE TUPLE "
    "TUPLE1 TUPLE2 TUPLE3".split()
)


def read(fields: Fields, ceiling: Limits, *, stdio: bool) -> Asked:
    """`stdio`: tests are inputs and outputs; otherwise source that runs beside the program and says if it passed."""
    source = fields.text("program")
    seconds = fields.number("max_execution_time", 1.0)
    limits = replace(
        ceiling,
        cpu_seconds=min(seconds, ceiling.cpu_seconds),
        wall_seconds=min(seconds, ceiling.wall_seconds),
        memory_mb=min(_DEFAULT_MB, ceiling.memory_mb),
    )
    cases: list[Case] = []
    outputs: list[str] = []
    for number, test in enumerate(_tests(fields.values.get("tests"))):
        place = f"tests[{number}]"
        if stdio:
            pair = Fields(test, place)
            stdin = _lines(pair, "input").encode("utf-8", "surrogatepass")
            cases.append(Case(Program(source, stdin=stdin), limits))
            outputs.append(_lines(pair, "output"))
        elif isinstance(test, str):
            cases.append(Case(_beside(source, test), limits))
        else:
            bad(f"{place} must be a string of Python")
    return Asked(cases, lambda verdicts: answer(verdicts, outputs))


def answer(verdicts: Sequence[Verdict], outputs: Sequence[str]) -> dict[str, Any]:
    """Times are CPU time, which a busy machine does not change; -1 for a test that failed."""
    for verdict in verdicts:
        if verdict.name == "infra":  # the shape has no word for it, and a 0 would blame the program
            raise Refusal(503, f"the sandbox failed: {verdict.detail}")
    good = [verdict.passed for verdict in verdicts]
    if outputs:
        good = [v.passed and same(v.stdout, out) for v, out in zip(verdicts, outputs, strict=True)]
    runtimes = [round(v.cpu_seconds, 6) if ok else -1.0 for v, ok in zip(verdicts, good, strict=True)]
    return {"results": [int(ok) for ok in good], "runtimes": runtimes}


def _beside(source: str, test: str) -> Program:
    try:
        ast.parse(test)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return Program(
            f"{source}\n{test}"
        )  # fails as a whole: one bad test is no reason to refuse the others
    return Program(source, test=test, together=True)


def _lines(pair: Fields, key: str) -> str:
    """A string, or a list of lines."""
    if isinstance(pair.values.get(key), list):
        return "\n".join(pair.texts(key))
    text: str = pair.text(key)
    return text


def same(printed: str, expected: str) -> bool:
    """Equal line by line, blanks at either end aside; a line of numbers by its numbers."""
    mine = [line.strip() for line in printed.strip().split("\n")]
    theirs = [line.strip() for line in expected.strip().split("\n")]
    return len(mine) == len(theirs) and all(a == b or _equal(a, b) for a, b in zip(mine, theirs, strict=True))


def _equal(mine: str, theirs: str) -> bool:
    try:
        return [Decimal(word) for word in mine.split()] == [Decimal(word) for word in theirs.split()]
    except InvalidOperation:
        return False


def _tests(given: Any) -> list[Any]:
    """The list itself, or as JSON text, or as a compressed pickle in base64."""
    if isinstance(given, str) and given:
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            given = _unpack(given)
    if given is None or given == "":
        return []
    if not isinstance(given, list):
        bad("tests must be a list, or text that holds one")
    if len(given) > MOST_CASES:
        bad(f"{len(given):,} tests are too many: send at most {MOST_CASES:,}")
    return given


def _unpack(text: str) -> Any:
    try:
        opened = zlib.decompressobj()
        data = opened.decompress(base64.b64decode(text, validate=True), _LARGEST)
        if opened.unconsumed_tail:
            bad(f"tests unpack to more than {_LARGEST >> 20} MB")
        strange = {code.name for code, _, _ in pickletools.genops(data)} - _PLAIN
        if strange:
            bad(f"tests are a pickle of more than plain data ({', '.join(sorted(strange))})")
        return _Plain(io.BytesIO(data)).load()
    except Refusal:
        raise
    except Exception as error:  # a pickle that was tampered with fails in any way
        bad(f"tests are neither JSON nor a compressed pickle in base64: {type(error).__name__}")


class _Plain(pickle.Unpickler):
    """A reader that knows no class."""

    def find_class(self, module: str, name: str) -> NoReturn:
        """Nothing is found."""
        raise pickle.UnpicklingError(f"{module}.{name}")
