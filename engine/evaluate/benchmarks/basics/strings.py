"""Operations on one text `s`."""

from __future__ import annotations

from functools import partial

from engine.evaluate.benchmarks.basics.operation import operation

LETTERS = tuple("abcdehiklmnoprstuw")
FEW = (1, 2, 3, 4, 5)

_op = partial(operation, "text", "str")

OPERATIONS = (
    _op("upper", "str", ("put it in upper case",), "s.upper()"),
    _op("reverse", "str", ("reverse the text",), "s[::-1]"),
    _op("first", "str", ("keep the first $k letters",), "s[:$k]", FEW[1:]),
    _op("skip", "str", ("drop the first $k letters",), "s[$k:]", FEW[1:]),
    _op("repeat", "str", ("repeat the text $k times",), "s * $k", (2, 3, 4, 5)),
    _op("append", "str", ("append the letter $k",), 's + "$k"', LETTERS),
    _op("prepend", "str", ("put the letter $k in front",), '"$k" + s', LETTERS),
    _op("remove", "str", ("remove each letter $k",), 's.replace("$k", "")', LETTERS),
    _op("length", "int", ("take the length",), "len(s)"),
    _op("count", "int", ("count the letter $k",), 's.count("$k")', LETTERS),
    _op("words", "words", ("split it into words",), "s.split()"),
    _op("swap_case", "str", ("swap the case",), "s.swapcase()", split="test"),
    _op("double", "str", ("write every letter twice",), '"".join(c * 2 for c in s)', split="test"),
    _op("vowels", "str", ("keep only the vowels",), '"".join(c for c in s if c in "aeiou")', split="test"),
    _op("last", "str", ("keep the last $k letters",), "s[-$k:]", FEW[1:], split="validation"),
    _op("mirror", "str", ("attach its mirror image",), "s + s[::-1]", split="validation"),
)
