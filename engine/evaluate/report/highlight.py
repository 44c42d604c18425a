"""Python source as coloured HTML; every piece is escaped, since models write it."""

from __future__ import annotations

import keyword
import re

from markupsafe import Markup

_TOKEN = re.compile(
    r"""(?P<comment>\#[^\n]*)
      | (?P<string>[rbfuRBFU]{0,2}(?:\"\"\"(?:\\.|[^\\])*?(?:\"\"\"|\Z) | '''(?:\\.|[^\\])*?(?:'''|\Z)
                 | "(?:\\.|[^"\\\n])*"? | '(?:\\.|[^'\\\n])*'?))
      | (?P<number>\b\d[\w.]*)
      | (?P<definition>(?<=\bdef\s)\w+|(?<=\bclass\s)\w+)
      | (?P<word>[^\W\d]\w*)
      | (?P<rest>\s+|.)""",
    re.X | re.S,
)
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_KEYWORDS = frozenset(keyword.kwlist)
MOST_CHARACTERS = 6000


def visible(text: str) -> str:
    """The text with control characters, turned text and lone surrogates as replacement characters."""
    return _UNPRINTABLE.sub("\ufffd", text)


def highlight(source: str) -> Markup:
    """Spans of class `k` (keyword), `s`, `n`, `d` (defined name) and `c` around their tokens; long sources are cut."""
    parts: list[Markup] = []
    for match in _TOKEN.finditer(visible(source[:MOST_CHARACTERS])):
        kind, text = match.lastgroup, match.group()
        if kind == "word":
            kind = "keyword" if text in _KEYWORDS else "rest"
        if kind == "rest":
            parts.append(Markup("{}").format(text))
        else:
            parts.append(Markup('<span class="{}">{}</span>').format((kind or "rest")[0], text))
    if len(source) > MOST_CHARACTERS:
        parts.append(Markup("\n… {} more characters").format(f"{len(source) - MOST_CHARACTERS:,}"))
    return Markup("").join(parts)
