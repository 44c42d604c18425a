"""Rows of our own in the formats that APPS, CodeContests and LiveCodeBench publish."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def apps(
    number: int = 0, *, tests: dict[str, Any] | str, solutions: Sequence[str] = (), **other: Any
) -> dict:
    """A row as in codeparrot/apps: texts of JSON, empty where there is nothing."""
    return {
        "problem_id": number,
        "question": "Add the numbers.\n\n-----Input-----\nA line of numbers $\\underline{a}$.",
        "solutions": json.dumps(list(solutions)) if solutions else "",
        "input_output": tests if isinstance(tests, str) else json.dumps(tests),
        "difficulty": "interview",
        "url": "",
        "starter_code": "",
        **other,
    }


def codecontests(**other: Any) -> dict:
    """A row as in deepmind/code_contests: columns of records are dicts of lists."""
    return {
        "name": "1_A. Sums",
        "description": "Print the sum of the two numbers.",
        "public_tests": {"input": ["1 2\n"], "output": ["3\n"]},
        "private_tests": {"input": ["-1 1\n"], "output": ["0\n"]},
        "generated_tests": {"input": ["10 5\n"], "output": ["15\n"]},
        "source": 2,
        "difficulty": 7,
        "solutions": {
            "language": [2, 1, 3],
            "solution": ["int main() {}", "print sum(map(int, raw_input().split()))", SUM],
        },
        "incorrect_solutions": {"language": [3], "solution": ["print(3)"]},
        "time_limit": {"seconds": 2, "nanos": 500_000_000},
        "memory_limit_bytes": 2 << 30,
        "input_file": "",
        "output_file": "",
        **other,
    }


def livecodebench(
    name: str = "",
    tests: Sequence[tuple[str, str]] = (("1 2\n", "3\n"),),
    *,
    packed: bool = True,
    **other: Any,
) -> dict:
    """A row as in livecodebench/code_generation_lite: one public test, all of them private."""
    form = "functional" if name else "stdin"
    cases = [{"input": given, "output": wanted, "testtype": form} for given, wanted in tests]
    private = json.dumps(cases)
    if packed:
        private = base64.b64encode(zlib.compress(pickle.dumps(private))).decode()
    return {
        "question_title": "Sums",
        "question_content": "Print the sum.",
        "platform": "leetcode" if name else "atcoder",
        "question_id": "abc301_a",
        "contest_id": "abc301",
        "contest_date": "2024-08-15T00:00:00",
        "starter_code": f"class Solution:\n    def {name}(self, a: List[int]) -> int:\n        "
        if name
        else "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(cases[:1]),
        "private_test_cases": private,
        "metadata": json.dumps({"func_name": name} if name else {}),
        **other,
    }


SUM = "print(sum(map(int, input().split())))\n"
