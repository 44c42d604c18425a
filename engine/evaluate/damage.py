"""Folders that are read again: a file in them that is damaged, or of another version, is told in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jinja2 import TemplateError

from engine.errors import WishError


@contextmanager
def told(what: str) -> Iterator[None]:
    """Say of `what` that it is damaged where its reader stumbles over what no writer of it would have written."""
    try:
        yield
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        RecursionError,
        TemplateError,
    ) as error:
        raise WishError(
            f"{what}: a file there is damaged, or of another version ({type(error).__name__}: {str(error)[:200]})",
            "leave it out, or have it written again",
        ) from error
