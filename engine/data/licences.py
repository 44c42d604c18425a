"""Which licences rows say they are under, by their licence columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

_COLUMNS = (
    "license",
    "licence",
    "licenses",
    "licences",
    "detected_licenses",
    "max_stars_repo_licenses",
    "repo_license",
)


def count(rows: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Rows by licence as it is written, the most frequent first; empty where no row has such a column."""
    counts: Counter[str] = Counter()
    seen = False
    for columns in rows:
        there = [columns[name] for name in _COLUMNS if name in columns]
        seen = seen or bool(there)
        names = {name for value in there for name in _names(value)}
        counts.update(names or {"none given"})
    return dict(counts.most_common()) if seen else {}


def _names(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value.strip()] if value.strip() else []
    if isinstance(value, list | tuple):
        return [name for each in value for name in _names(each)]
    return []
