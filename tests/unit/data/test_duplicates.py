"""Duplicates: spaces aside for exact ones, a share of words in a row for near ones."""

from __future__ import annotations

import random

from engine.data.duplicates import find

WORDS = [f"{a}{b}{c}" for a in "bdfgkl" for b in "aeiou" for c in "mnprst"]


def _text(seed: int, count: int = 80) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count))


def test_copies_are_exact_whatever_their_spaces() -> None:
    found = find([("a", "x = 1\ny = 2"), ("b", "other"), ("c", "x  =  1\n\n\ty = 2 "), ("d", "x = 1 y = 2")])
    assert found.exact == (("a", "c", "d"),) and found.exact_rows == 2
    assert found.near == () and found.near_rows == 0


def test_a_word_changed_is_near_and_half_changed_is_not() -> None:
    text = _text(1)
    words = text.split()
    touched = " ".join([*words[:40], "changed", *words[41:]])
    twice = " ".join([*words[:20], "one", *words[21:60], "two", *words[61:]])  # 0.77 is less than 0.8
    assert not find([("a", text), ("b", twice)]).near
    half = " ".join([*words[:40], *_text(2).split()[:40]])
    found = find([("a", text), ("b", _text(3)), ("c", touched), ("d", half), ("e", text)])
    assert found.exact == (("a", "e"),)
    assert found.near == (("a", "c"),) and found.near_rows == 1


def test_every_near_copy_among_many_is_found_and_nothing_else() -> None:
    rows = [(f"r{n}", _text(n)) for n in range(300)]
    rows += [(f"n{n}", _text(n) + " one more") for n in range(0, 300, 3)]
    found = find(rows)
    assert sorted(found.near) == sorted((f"r{n}", f"n{n}") for n in range(0, 300, 3))


def test_short_and_empty_texts_are_near_only_where_their_words_are_the_same() -> None:
    found = find([("a", "return x"), ("b", "return y"), ("c", "RETURN X"), ("d", ""), ("e", "##")])
    assert found.near == (("a", "c"),) and found.exact == ()
