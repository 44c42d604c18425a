"""Seeded arguments for hidden tests: the first ones are edge cases."""

from __future__ import annotations

import random

_WORDS = (
    *("apple", "banana", "cherry", "tree", "moon", "river", "stone", "cloud", "hat", "owl", "pen", "a", "ox"),
    *("tea", "Sun", "level", "noon", "kayak", "bottle", "winter", "carpet", "smile", "do", "it", "hi", "up"),
    *("letter", "number2", "x9", "Rome", "Oslo"),
)

_EDGES: dict[str, tuple[object, ...]] = {
    "int": (0, -7),
    "str": ("", "a"),
    "ints": ([], [5]),
    "words": ([], ["tea"]),
    "dict": ({}, {"a": 3}),
}


def argument(kind: str, rng: random.Random, number: int) -> object:
    """The number-th argument of a type: int, str, ints, words or dict."""
    edges = _EDGES[kind]
    if number < len(edges):
        return edges[number]
    if kind == "int":
        return rng.choice((rng.randint(-50, 99), rng.randint(100, 2000)))
    if kind == "str":
        return " ".join(rng.choices(_WORDS, k=rng.randint(1, 4)))
    if kind == "ints":
        return [rng.randint(-9, 20) for _ in range(rng.randint(3, 9))]
    if kind == "words":
        return rng.choices(_WORDS, k=rng.randint(3, 8))
    return {rng.choice(_WORDS): rng.randint(-9, 20) for _ in range(rng.randint(2, 6))}


def function_call(kind: str, rng: random.Random, name: str, number: int) -> str:
    """The expression that calls the entry point with the number-th argument."""
    return f"{name}({argument(kind, rng, number)!r})"
