"""A clash found in a Run, as the rules report it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """A wish that cannot be met: what clashes (with the values) and what to do."""

    what: str
    fix: str
