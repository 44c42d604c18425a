"""Loops with an accumulator: over numbers, over words into a dict, over the letters of a text."""

from __future__ import annotations

from functools import partial

from engine.evaluate.benchmarks.basics.form import Form
from engine.evaluate.benchmarks.basics.inputs import function_call
from engine.evaluate.benchmarks.basics.numbers import SMALL
from engine.evaluate.benchmarks.basics.operation import operation
from engine.evaluate.benchmarks.basics.strings import LETTERS

NAMES = ("f", "g", "h", "solve")

_loop = partial(operation, "loop", "loop")
_group = partial(operation, "group", "group")
_build = partial(operation, "build", "build")

NUMBERS = Form(
    name="loop",
    header="def $name(xs):",
    sentence="$flow, $gather.",
    body="    t = $before\n    for x in xs:\n$flow    return t\n",
    names=NAMES,
    call=partial(function_call, "ints"),
    weight=6,
    slots={
        "flow": (
            _loop(
                "each",
                "flow",
                ("For each number that is $guard",),
                "        if $guard:\n            $gather\n",
            ),
            _loop(
                "until",
                "flow",
                ("Until a number is $guard",),
                "        if $guard:\n            break\n        $gather\n",
            ),
        ),
        "guard": (
            _loop("even", "guard", ("even",), "x % 2 == 0"),
            _loop("odd", "guard", ("odd",), "x % 2 == 1"),
            _loop("above", "guard", ("above $k",), "x > $k", SMALL),
            _loop("below", "guard", ("below $k",), "x < $k", SMALL),
            _loop("divisible", "guard", ("divisible by $k",), "x % $k == 0", SMALL[1:]),
            _loop("negative", "guard", ("negative",), "x < 0"),
            _loop("equal", "guard", ("equal to $k",), "x == $k", SMALL, "test"),
        ),
        "value": (
            _loop("itself", "value", ("the number",), "x"),
            _loop("square", "value", ("its square",), "x * x"),
            _loop("plus", "value", ("the number plus $k",), "x + $k", SMALL),
            _loop("times", "value", ("the number times $k",), "x * $k", SMALL),
            _loop("absolute", "value", ("its absolute value",), "abs(x)"),
            _loop("half", "value", ("its half rounded down",), "x // 2", split="test"),
        ),
        "gather": (
            _loop(
                "total", "gather", ("add $value to a total from $k",), "t = t + $value", SMALL, before="$k"
            ),
            _loop(
                "take", "gather", ("take $value off a total from $k",), "t = t - $value", SMALL, before="$k"
            ),
            _loop(
                "largest",
                "gather",
                ("find the largest of $k and $value",),
                "t = max(t, $value)",
                SMALL,
                before="$k",
            ),
            _loop("collect", "gather", ("collect $value in a list",), "t.append($value)", before="[]"),
            _loop("front", "gather", ("put $value in front of a list",), "t.insert(0, $value)", before="[]"),
            _loop("write", "gather", ("write $value to a text",), "t = t + str($value)", before='""'),
            _loop(
                "smallest",
                "gather",
                ("find the smallest of $k and $value",),
                "t = min(t, $value)",
                SMALL,
                "validation",
                "$k",
            ),
        ),
    },
)

WORDS = Form(
    name="group",
    header="def $name(ws):",
    sentence="For each word $guard, $update.",
    body="    d = {}\n    for w in ws:\n        if $guard:\n            k = $key\n            $update\n    return d\n",
    names=NAMES,
    call=partial(function_call, "words"),
    weight=4,
    slots={
        "guard": (
            _group("longer", "guard", ("longer than $k",), "len(w) > $k", (2, 3, 4, 5)),
            _group("shorter", "guard", ("shorter than $k",), "len(w) < $k", (3, 4, 5, 6)),
            _group("having", "guard", ("with the letter $k",), '"$k" in w', LETTERS),
            _group("lacking", "guard", ("without the letter $k",), '"$k" not in w', LETTERS),
            _group("ends_with", "guard", ("ending with $k",), 'w[-1] == "$k"', LETTERS, "test"),
        ),
        "key": (
            _group("initial", "key", ("its first letter",), "w[0]"),
            _group("ending", "key", ("its last letter",), "w[-1]"),
            _group("size", "key", ("its length",), "len(w)"),
            _group("start", "key", ("its first $k letters",), "w[:$k]", (2, 3)),
        ),
        "update": (
            _group("count", "update", ("count it under $key",), "d[k] = d.get(k, 0) + 1"),
            _group("list", "update", ("list it under $key",), "d[k] = d.get(k, []) + [w]"),
            _group("store", "update", ("store it under $key",), "d[k] = w"),
            _group("join", "update", ("join it to the text under $key",), 'd[k] = d.get(k, "") + w'),
            _group("letters", "update", ("add its length under $key",), "d[k] = d.get(k, 0) + len(w)"),
            _group(
                "longest",
                "update",
                ("keep the most letters under $key",),
                "d[k] = max(d.get(k, 0), len(w))",
                split="test",
            ),
        ),
    },
)

_PIECES = (
    _build("same", "piece", ("it",), "c"),
    _build("upper", "piece", ("its upper case",), "c.upper()"),
    _build("times", "piece", ("it $k times",), "c * $k", (2, 3, 4)),
    _build("dash", "piece", ("a dash",), '"-"'),
    _build("after", "piece", ("it with the letter $k",), 'c + "$k"', LETTERS),
    _build("before", "piece", ("the letter $k with it",), '"$k" + c', LETTERS, "validation"),
)

LETTERS_OF_TEXT = Form(
    name="build",
    header="def $name(s):",
    sentence="For each letter $guard write $then, for the others write $otherwise.",
    body=(
        '    t = ""\n    for c in s:\n        if $guard:\n            t = t + $then\n'
        "        else:\n            t = t + $otherwise\n    return t\n"
    ),
    names=NAMES,
    call=partial(function_call, "str"),
    weight=3,
    slots={
        "guard": (
            _build("vowel", "guard", ("that is a vowel",), 'c in "aeiou"'),
            _build("digit", "guard", ("that is a digit",), "c.isdigit()"),
            _build("equal", "guard", ("equal to $k",), 'c == "$k"', LETTERS),
            _build("beyond", "guard", ("after $k",), 'c > "$k"', LETTERS),
            _build("within", "guard", ("up to $k",), 'c <= "$k"', LETTERS, "test"),
        ),
        "then": _PIECES,
        "otherwise": _PIECES,
    },
)

FORMS = (NUMBERS, WORDS, LETTERS_OF_TEXT)
