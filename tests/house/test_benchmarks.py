"""Scripts of benchmarks write pages of the whole benchmark alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PARTS = [
    ("canonical", ["--sets", "MBPP"]),
    ("multipl_e", ["--languages", "lua", "--limit", "1"]),
    *(
        pytest.param(name, part, marks=pytest.mark.slow)
        for name, part in (
            ("oversubscription", ["--limit", "1"]),
            ("score_codegen16b", ["--limit", "1"]),
            ("plan_memory", ["--only", "zero3"]),
        )
    ),
]


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_a_part_is_not_written_in_place_of_the_whole(name: str, part: list[str]) -> None:
    words = [sys.executable, f"benchmarks/{name}.py", *part, "--write"]
    env = {key: value for key, value in os.environ.items() if key != "TEMPER_DATA"} | {
        "PYTHONPATH": str(ROOT)
    }
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 2, "without the refusal these end for want of data, with 1"
    assert f"leave out {' and '.join(part[::2])}" in done.stderr
