"""A small benchmark in HumanEval's format, and where the field's data lies."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

TASKS = [
    ("Small/0", "double", "x", "    return x * 2\n", ["candidate(2) == 4", "candidate(-1) == -2"]),
    ("Small/1", "first", "items", "    return items[0]\n", ["candidate([3, 4]) == 3"]),
    (
        "Small/2",
        "shout",
        "text",
        "    return text.upper()\n",
        ["candidate('a') == 'A'", "candidate('') == ''"],
    ),
    ("Small/3", "total", "items", "    return sum(items)\n", ["candidate([1, 2]) == 3"]),
    ("Small/4", "last", "items", "    return items[-1]\n", ["candidate([3, 4]) == 4"]),
]


def rows() -> list[dict[str, str]]:
    return [
        {
            "task_id": name,
            "prompt": f'def {entry}({argument}):\n    """Task {name}."""\n',
            "entry_point": entry,
            "canonical_solution": body,
            "test": "def check(candidate):\n" + "".join(f"    assert {line}\n" for line in checks),
        }
        for name, entry, argument, body, checks in TASKS
    ]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark file with five tasks."""
    path = tmp_path_factory.mktemp("small") / "small.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return path


@pytest.fixture
def field_data() -> Path:
    """Folder of the field's public data."""
    folder = os.environ.get("TEMPER_DATA")
    if not folder:
        pytest.skip("TEMPER_DATA is not set: it names the folder with humaneval/HumanEval.jsonl.gz")
    return Path(folder)
