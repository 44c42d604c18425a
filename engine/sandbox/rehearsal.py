"""A program as models write them, run before any stranger's: what the interpreter prepares for it, no fork has to."""

from __future__ import annotations

import marshal

TIMES = 20
"""The interpreter adapts its own code to what it has run some times."""

CALLS = ("f([1, 2])",)

AHEAD = marshal.dumps([([[1, 2.5, "a"]], {})] * 3)

SOURCE = '''
from typing import List, Tuple, Dict, Optional
import math
import re


def helper(text: str, sep: str = " ") -> Dict[str, int]:
    """Count words.
    >>> helper("a b a")
    {"a": 2, "b": 1}
    """
    counts: Dict[str, int] = {}
    for word in text.lower().strip().split(sep):
        counts[word] = counts.get(word, 0) + 1
    return counts


def f(x: List[int], k: int = 3) -> int:
    best: Optional[Tuple[int, int]] = None
    for i, value in enumerate(sorted(set(map(str, x)), key=len, reverse=True)):
        if best is None or len(value) > best[0] and not value.isdigit():
            best = (len(value), i)
    while k > 0:
        k -= 1
        x = [y * 2 % 97 if isinstance(y, int) else y for y in x] + [sum(range(k))]
    table = {chr(97 + i): helper("a b %d" % i) for i in range(3)}
    try:
        total = sum(int(d) for d in re.findall(r"[0-9]+", "".join("{}-{}".format(a, b) for a, b in table.items())))
    except (ValueError, KeyError):
        total = -1
    return max(total, math.floor(len(x) / 2)) + min([abs(v) for v in (1, -2, 3)]) + len("%s" % (best,))
'''
"""Uses what is common: hints, loops, sorting, comprehensions, formatting, a regular expression, an exception."""
