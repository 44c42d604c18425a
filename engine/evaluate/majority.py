"""Which answers are the same, by short hashes of them, and whether the most common one passes."""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

from engine.evaluate.passk import Estimate, interval
from engine.generate import parsed
from engine.sandbox import Program

LEAST_VOTES = 3
"""Of two samples that differ, none has a majority."""
MOST_CHARACTERS = 100_000
"""Of a source whose syntax tree is looked at; a longer one is the same as its own text alone."""
_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Vote:
    """One sample: which answer it gave, and whether it passed."""

    answer: str
    passed: bool


def digest(text: str) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a text; lone surrogates are let through."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def answer(program: Program) -> str:
    """The digest of a program, the same for two that differ in layout, comments or docstrings alone.

    Of a language other than Python, and of what does not parse, the text itself counts.
    """
    source = program.source
    if program.language != "python" or len(source) > MOST_CHARACTERS:
        return digest(source)
    tree = parsed(source)
    try:
        return digest(source if tree is None else ast.dump(_without_docstrings(tree)))
    except (RecursionError, ValueError):  # deeper than it can be written out, or with a number longer
        return digest(source)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return tree


def majority(ballots: Sequence[Sequence[Vote]]) -> Estimate | None:
    """maj@n: the share of tasks whose most common answer passes, with its 95 % interval.

    Self-consistency (arXiv 2203.11171) with programs as the answers: two samples vote together only where their
    programs are the same (see `answer`), since these benchmarks ask for programs and not for values. Of answers
    with as many votes the one drawn first is taken, and its first sample's verdict counts.

    Args:
        ballots: of each task its votes, in the order they were drawn.

    Returns:
        The estimate, undefined as soon as one task has too few votes; None where all have, since nobody asked
        for a vote then.
    """
    if max(map(len, ballots), default=0) < LEAST_VOTES:
        return None
    short = sum(len(votes) < LEAST_VOTES for votes in ballots)
    if short:
        return Estimate(
            None, reason=f"{short} of {len(ballots)} tasks have fewer than {LEAST_VOTES} scored samples"
        )
    values = [float(_winner(votes).passed) for votes in ballots]
    return Estimate(fsum(values) / len(values), *interval(values))


def _winner(votes: Sequence[Vote]) -> Vote:
    # Counter keeps the order of first sight, and max takes the first of equals.
    counts = Counter(vote.answer for vote in votes)
    chosen = max(counts, key=counts.__getitem__)
    return next(vote for vote in votes if vote.answer == chosen)
