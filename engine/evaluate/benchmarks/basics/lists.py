"""Operations on a list of whole numbers `xs` and on a list of words `ws`."""

from __future__ import annotations

from functools import partial

from engine.evaluate.benchmarks.basics.numbers import SMALL
from engine.evaluate.benchmarks.basics.operation import operation
from engine.evaluate.benchmarks.basics.strings import LETTERS

FEW = (1, 2, 3, 4, 5)

_ints = partial(operation, "list", "ints")

_words = partial(operation, "words", "words")

INTS = (
    _ints("even", "ints", ("keep the even numbers",), "[x for x in xs if x % 2 == 0]"),
    _ints("odd", "ints", ("keep the odd numbers",), "[x for x in xs if x % 2 == 1]"),
    _ints("above", "ints", ("keep the numbers above $k",), "[x for x in xs if x > $k]", SMALL),
    _ints("below", "ints", ("keep the numbers below $k",), "[x for x in xs if x < $k]", SMALL),
    _ints("add", "ints", ("add $k to each number",), "[x + $k for x in xs]", SMALL),
    _ints("multiply", "ints", ("multiply each number by $k",), "[x * $k for x in xs]", SMALL),
    _ints("square", "ints", ("square each number",), "[x * x for x in xs]"),
    _ints("negate", "ints", ("negate each number",), "[-x for x in xs]"),
    _ints("sort", "ints", ("sort the numbers",), "sorted(xs)"),
    _ints("reverse", "ints", ("reverse the list",), "xs[::-1]"),
    _ints("unique", "ints", ("drop repeated numbers",), "list(dict.fromkeys(xs))"),
    _ints("first", "ints", ("keep the first $k numbers",), "xs[:$k]", FEW[1:]),
    _ints("skip", "ints", ("drop the first $k numbers",), "xs[$k:]", FEW[1:]),
    _ints("append", "ints", ("append the number $k",), "xs + [$k]", SMALL),
    _ints("sum", "int", ("add up the numbers",), "sum(xs)"),
    _ints("max", "int", ("take the largest number or 0",), "max(xs, default=0)"),
    _ints("length", "int", ("count the numbers",), "len(xs)"),
    _ints("other", "ints", ("keep the numbers other than $k",), "[x for x in xs if x != $k]", SMALL, "test"),
    _ints("halve", "ints", ("halve each number rounding down",), "[x // 2 for x in xs]", split="test"),
    _ints("every_second", "ints", ("keep every second number",), "xs[::2]", split="test"),
    _ints("count_value", "int", ("count how often $k occurs",), "xs.count($k)", FEW, "test"),
    _ints("last", "ints", ("keep the last $k numbers",), "xs[-$k:]", FEW[1:], "validation"),
    _ints("twice", "ints", ("repeat the whole list",), "xs + xs", split="validation"),
)

WORDS = (
    _words("longer", "words", ("keep the words longer than $k",), "[w for w in ws if len(w) > $k]", FEW[1:]),
    _words(
        "shorter", "words", ("keep the words shorter than $k",), "[w for w in ws if len(w) < $k]", FEW[1:]
    ),
    _words(
        "having", "words", ("keep the words with the letter $k",), '[w for w in ws if "$k" in w]', LETTERS
    ),
    _words("upper", "words", ("put each word in upper case",), "[w.upper() for w in ws]"),
    _words("reverse", "words", ("reverse each word",), "[w[::-1] for w in ws]"),
    _words("sort", "words", ("sort the words",), "sorted(ws)"),
    _words("first", "words", ("keep the first $k words",), "ws[:$k]", FEW[1:]),
    _words("lengths", "ints", ("take the length of each word",), "[len(w) for w in ws]"),
    _words("join", "str", ("join the words with dashes",), '"-".join(ws)'),
    _words("count", "int", ("count the words",), "len(ws)"),
    _words(
        "starting",
        "words",
        ("keep the words starting with $k",),
        '[w for w in ws if w[:1] == "$k"]',
        LETTERS,
        "test",
    ),
    _words("initials", "words", ("take the initial of each word",), "[w[:1] for w in ws]", split="test"),
    _words("rotate", "words", ("move the first word to the end",), "ws[1:] + ws[:1]", split="validation"),
)

OPERATIONS = INTS + WORDS
