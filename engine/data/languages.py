"""Which programming languages rows hold, by what they say themselves: a column, fence labels, or a file name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

_COLUMNS = ("language", "lang", "programming_language")
_PATHS = ("path", "file_path", "file_name", "filename", "max_stars_repo_path")
_FENCE = re.compile(r"^[ \t]*(?:```+|~~~+)[ \t]*([\w+#.-]*)", re.MULTILINE)
_CALLED = {
    "py": "python",
    "python3": "python",
    "py3": "python",
    "pyi": "python",
    "js": "javascript",
    "jsx": "javascript",
    "mjs": "javascript",
    "ts": "typescript",
    "tsx": "typescript",
    "cpp": "c++",
    "cc": "c++",
    "cxx": "c++",
    "hpp": "c++",
    "h": "c",
    "cs": "c#",
    "csharp": "c#",
    "rs": "rust",
    "rb": "ruby",
    "golang": "go",
    "kt": "kotlin",
    "sh": "bash",
    "shell": "bash",
    "pl": "perl",
    "yml": "yaml",
}


def count(rows: Iterable[tuple[dict[str, Any], str]]) -> dict[str, int]:
    """Rows (columns, text) by language, the most frequent first; a row with fences of two counts for both."""
    counts = Counter(name for columns, text in rows for name in _languages(columns, text))
    return dict(counts.most_common())


def _languages(columns: dict[str, Any], text: str) -> set[str]:
    for column in _COLUMNS:
        value = columns.get(column)
        if isinstance(value, str) and value.strip():
            return {_name(value)}
    # Every second fence closes.
    if labels := _FENCE.findall(text)[::2]:
        return {_name(label) if label else "fence without a label" for label in labels}
    for column in _PATHS:
        value = columns.get(column)
        if isinstance(value, str) and (suffix := PurePosixPath(value).suffix):
            return {_name(suffix[1:])}
    return {"not said"}


def _name(label: str) -> str:
    plain = label.strip().lower()
    return _CALLED.get(plain, plain)
