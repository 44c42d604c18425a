"""Fenced code in a Markdown text: where it begins and ends, for those who take it and those who leave it alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"^([ \t]*)(`{3,}|~{3,})([^`\n]*)$", re.M)


@dataclass(frozen=True, slots=True)
class Fenced:
    """One fenced block, by places in its text."""

    start: int
    """Of the line that opens it."""
    end: int
    """Behind the line that closes it, or the end of the text."""
    margin: str
    """What stands before the fence on its line."""
    info: str
    """What stands behind it."""
    code: str
    """The lines between, each with its end."""


def fences(text: str) -> Iterator[Fenced]:
    """All fenced blocks, in order; only a bare fence of the same kind, and no shorter, closes one."""
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif fence[2].startswith(opened[2]) and not fence[3].strip():
            code = text[opened.end() + 1 : fence.start()].removesuffix("\n")
            yield Fenced(opened.start(), fence.end(), opened[1], opened[3], code + "\n")
            opened = None
    if opened is not None:  # never closed: it runs to the end
        yield Fenced(opened.start(), len(text), opened[1], opened[3], text[opened.end() + 1 :] + "\n")
