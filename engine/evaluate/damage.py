"""Folders that are read again: a file in them that is damaged, or of another version, is told in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jinja2 import TemplateError
from yaml import YAMLError

from engine.errors import WishError

_STUMBLES = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError),
    *(TemplateError, YAMLError),
)


@contextmanager
def told(what: str, fix: str) -> Iterator[None]:
    """Say of `what` that it is damaged where its reader stumbles over what no writer of it would have written.

    Only around reading: what goes wrong in other work is a bug, and must show as one.
    """
    try:
        yield
    except _STUMBLES as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        what = f"{what} holds a damaged file (or one of another version: {reason[:200]})"
        raise WishError(what, fix) from error
