"""Operations on a dict `d` from words to whole numbers."""

from __future__ import annotations

from functools import partial

from engine.evaluate.benchmarks.basics.numbers import SMALL
from engine.evaluate.benchmarks.basics.operation import operation

_op = partial(operation, "dict", "dict")

OPERATIONS = (
    _op("above", "dict", ("keep the entries above $k",), "{w: x for w, x in d.items() if x > $k}", SMALL),
    _op("below", "dict", ("keep the entries below $k",), "{w: x for w, x in d.items() if x < $k}", SMALL),
    _op("add", "dict", ("add $k to each entry",), "{w: x + $k for w, x in d.items()}", SMALL),
    _op("multiply", "dict", ("multiply each entry by $k",), "{w: x * $k for w, x in d.items()}", SMALL),
    _op("keys", "words", ("list the keys",), "list(d)"),
    _op("values", "ints", ("list the values",), "list(d.values())"),
    _op("size", "int", ("count the entries",), "len(d)"),
    _op("negate", "dict", ("negate each entry",), "{w: -x for w, x in d.items()}", split="test"),
    _op(
        "short",
        "dict",
        ("keep the keys shorter than $k",),
        "{w: x for w, x in d.items() if len(w) < $k}",
        (3, 4, 5),
        "test",
    ),
    _op("square", "dict", ("square each entry",), "{w: x * x for w, x in d.items()}", split="validation"),
)
