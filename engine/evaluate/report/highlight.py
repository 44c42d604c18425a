"""Source as coloured HTML, in the colours of its language; every piece is escaped, since models write it."""

from __future__ import annotations

import re

from markupsafe import Markup
from pygments.lexers import get_lexer_by_name
from pygments.token import Token, is_token_subtype
from pygments.util import ClassNotFound

_CLASSES = {
    Token.Comment: "c",
    Token.Literal.String: "s",
    Token.Literal.Number: "n",
    Token.Keyword: "k",
    Token.Operator.Word: "k",
    Token.Name.Function: "d",
    Token.Name.Class: "d",
}
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
MOST_CHARACTERS = 6000


def visible(text: str) -> str:
    """The text with control characters, turned text and lone surrogates as replacement characters."""
    return _UNPRINTABLE.sub("\ufffd", text)


def highlight(source: str, language: str = "python") -> Markup:
    """Spans of class `k` (keyword), `s`, `n`, `d` (defined name) and `c` around their tokens; long sources are cut."""
    keep = {"stripnl": False, "ensurenl": False}
    try:
        lexer = get_lexer_by_name(language, **keep)
    except ClassNotFound:
        lexer = get_lexer_by_name("text", **keep)
    parts: list[Markup] = []
    for token, text in lexer.get_tokens(visible(source[:MOST_CHARACTERS])):
        kind = next((name for family, name in _CLASSES.items() if is_token_subtype(token, family)), "")
        span = '<span class="{}">{}</span>' if kind else "{1}"
        parts.append(Markup(span).format(kind, text))
    if len(source) > MOST_CHARACTERS:
        parts.append(Markup("\n… {} more characters").format(f"{len(source) - MOST_CHARACTERS:,}"))
    return Markup("").join(parts)
