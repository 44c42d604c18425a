"""Functions by their trees: a renamed copy is the same function, a changed one is not."""

from __future__ import annotations

import ast
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from engine.data.decontaminate import compare, refuse
from engine.data.functions import references, written
from engine.errors import WishError

TASK = '''from typing import List


def has_close_elements(numbers: List[float], threshold: float) -> bool:
    """Check if in the list, any two numbers are closer to each other than the threshold."""
    for idx, elem in enumerate(numbers):
        for idx2, elem2 in enumerate(numbers):
            if idx != idx2:
                distance = abs(elem - elem2)
                if distance < threshold:
                    return True

    return False
'''
RENAMED = """def near(xs, eps):
    # two of them nearer than eps
    for i, a in enumerate(xs):
        for j, b in enumerate(xs):
            if i != j:
                gap: float = abs(a - b)
                if gap < eps:
                    return True
    return False
"""


@pytest.mark.parametrize(
    "row",
    [
        RENAMED,
        "Here is how:\n\n```python\n" + RENAMED + "```\nIt takes n^2 steps.",
        "Here is how:\n\n" + RENAMED + "\nThat is all.",
        "- as a list item:\n  ```py\n" + re.sub("^", "  ", RENAMED, flags=re.M) + "  ```\n",
        "class Tools:\n" + re.sub("^", "    ", RENAMED, flags=re.M),
        "this does not parse (\n" + RENAMED.replace("(xs, eps)", "(\n    xs,\n    eps,\n)"),
        RENAMED.replace("# two", '"""Two"""\n    # two'),
    ],
    ids=["alone", "fenced", "in prose", "in a list", "as a method", "long signature", "docstring"],
)
def test_a_renamed_copy_is_found(row: str) -> None:
    report = compare([("r:1", "def other(a):\n    return a\n"), ("r:2", row)], {"HumanEval/0": TASK})
    assert [(c.row, c.task, c.function) for c in report.copies] == [("r:2", "HumanEval/0", "near")]
    assert report.counts()["contaminated_rows"] == 1
    with pytest.raises(WishError, match=r"1 of 2 training rows overlap .*r:2 has near\(\) of HumanEval/0"):
        refuse(report)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("abs(a - b)", "abs(a + b)"),
        ("gap < eps", "gap <= eps"),
        ("abs(", "len("),
        ("return True", "return 1"),
        ("abs(a - b)", "abs(a - a)"),
        ("for j, b in enumerate(xs)", "for j, b in enumerate(xs.rest)"),
    ],
)
def test_a_function_that_does_something_else_is_no_copy(old: str, new: str) -> None:
    changed = RENAMED.replace(old, new)
    assert changed != RENAMED
    assert len(written(changed)) == 1
    assert not compare([("r", changed)], [TASK]).copies


def test_small_functions_are_not_counted() -> None:
    small = "def add(a, b):\n    return a + b\n"
    assert not references(small) and not written(small)
    assert not compare([("r", small)], [small]).copies


def test_what_is_no_python_is_read_without_a_word() -> None:
    for text in ("", "def (", "def f(x)\n  puts x\nend\n", "def f(\0):\n  pass", "(" * 5000 + "def f(): 1"):
        assert written(text) == {}


def test_helpers_renamed_with_their_function_are_the_same() -> None:
    program = (
        "def is_prime(n):\n    return n > 1 and all(n % k for k in range(2, n))\n\n"
        "def total(limit):\n    values = [k for k in range(limit) if is_prime(k)]\n"
        "    return sum(values) * 3 + len(values)\n"
    )
    other = (
        program.replace("is_prime", "p").replace("total", "t").replace("values", "v").replace("limit", "m")
    )
    assert list(references(program).values()) == ["total"]  # the other one is small
    assert (
        set(references(program)) == set(references(other)) == set(written(f"In prose:\n{other}\nSo it is."))
    )
    assert set(references(program)) != set(references(program.replace("is_prime(k)", "isprime(k)")))


def _lines(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        pytest.skip(f"no {file.name}")
    with gzip.open(file, "rt") as lines:
        return [json.loads(line) for line in lines]


def _humaneval(folder: Path) -> dict[str, str]:
    tasks = _lines(folder / "humaneval" / "HumanEval.jsonl.gz")
    return {task["task_id"]: task["prompt"] + task["canonical_solution"] for task in tasks}


def _renamed(program: str) -> str:
    """Every local and argument of every function under another name, docstrings gone."""
    tree = ast.parse(program)
    defined = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    bound = {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)} | defined
    bound |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    for node in ast.walk(tree):
        match node:
            case ast.arg():
                node.arg, node.annotation = f"{node.arg}_zz", None
            case ast.Name() if node.id in bound:
                node.id += "_zz"
            case ast.FunctionDef():
                node.name, node.returns = f"{node.name}_zz", None
                if ast.get_docstring(node):
                    node.body = node.body[1:]
    return ast.unparse(tree)


def test_humanevals_own_solutions_are_all_refused_and_renamed_ones_where_they_are_not_small(
    field_data: Path,
) -> None:
    held = _humaneval(field_data)
    assert compare(held.items(), held).contaminated == set(held)
    renamed = {name: _renamed(program) for name, program in held.items()}
    report = compare(renamed.items(), held)
    large = {name for name, program in held.items() if references(program)}
    assert {copy.row for copy in report.copies} == large
    assert len(large) == 119


def test_mbpp_shares_one_function_with_humaneval(field_data: Path) -> None:
    rows = [(f"MBPP/{row['task_id']}", row["code"]) for row in _lines(field_data / "mbpp" / "mbpp.jsonl.gz")]
    held = _humaneval(field_data)
    assert not compare(rows[:200], held).contaminated
    # The Fibonacci numbers by their definition, under another name: a true copy.
    copies = compare(rows, held).copies
    assert [(c.row, c.function, c.task) for c in copies] == [("MBPP/960", "get_noOfways", "HumanEval/55")]
