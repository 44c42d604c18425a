"""MBPP (arXiv 2108.07732), from the hub or from any file in its format."""

from __future__ import annotations

import ast
import builtins
from typing import Any

from engine.errors import WishError
from engine.evaluate.benchmarks.tasks import asserts, collect, demand_fields, judge
from engine.evaluate.rows import from_file_or_hub
from engine.evaluate.task import Task
from engine.sandbox import Call, Program

__all__ = ["judge", "load", "program", "prompt"]

HUB_ID = "google-research-datasets/mbpp"
STOP = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n#", "\n```")
SPLITS = {
    "prompt": (1, 10),
    "test": (11, 510),
    "validation": (511, 600),
    "train": (601, 974),
    "all": (1, 974),
}
"""First and last task id of each split, as the paper has them."""
ON_THE_HUB = ("prompt", "test", "validation", "train")
FIELDS = {"task_id": int, "text": str, "code": str, "test_list": list}


def load(source: str | None, *, split: str = "test", limit: int | None = None) -> list[Task]:
    """Read the tasks.

    Args:
        source: a JSONL file, gzipped or not, in MBPP's format, or a hub id; None: the hub's original.
        split: the paper's `test` (500 tasks), `validation` (90), `train` (374) or `prompt` (10), or `all`.
        limit: first this many tasks only.

    Raises:
        WishError: no such file, dataset or split, or a row that is not a task (file and line are named).
    """
    if split not in SPLITS:
        raise WishError(f"MBPP has no split {split!r}", f"choose one of {', '.join(SPLITS)}")
    first, last = SPLITS[split]
    rows = from_file_or_hub(source, HUB_ID, split="+".join(ON_THE_HUB) if split == "all" else split)
    span = f"the split {split} (task_id {first} to {last}) of {source or HUB_ID}"

    def of_the_split(row: Any, place: str) -> Task | None:
        task = _task(row, place)
        return task if first <= row["task_id"] <= last else None

    return collect(rows, of_the_split, limit=limit, source=span)


def prompt(task: Task) -> str:
    """What a base model continues: a docstring with the request and the first test, which names the function."""
    return task.prompt


def program(task: Task, completion: str) -> Program:
    """The program to judge, and the task's three asserts."""
    return Program(
        source=task.prompt + completion, entry_point=task.entry_point, test=task.test, calls=task.calls
    )


def _task(row: Any, place: str) -> Task:
    demand_fields(row, place, FIELDS, of="MBPP's format")
    code = row["code"].replace("\r\n", "\n")
    tests = [str(test).strip() for test in row["test_list"]]
    setup = str(row.get("test_setup_code") or "").replace("\r\n", "\n")
    try:
        name = function_tested(code, tests)
        calls = _calls(setup, tests) if setup or _hands_over_objects(code, tests) else ()
    except (SyntaxError, ValueError) as error:
        raise WishError(f"{place}: a test cannot be read ({error})", "mend or remove the line") from None
    return Task(
        id=f"MBPP/{row['task_id']}",
        prompt=f'"""\n{row["text"].strip()}\n{tests[0]}\n"""\n',
        entry_point=name,
        reference=code if code.endswith("\n") else code + "\n",
        test=None if calls else asserts(name, tests),
        calls=calls,
        stop=STOP,
    )


def function_tested(code: str, tests: list[str]) -> str:
    """The function that the tests call: the first name in them that the reference defines."""
    defined = {node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)}
    for test in tests:
        for node in ast.walk(ast.parse(test)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in defined:
                return node.func.id
    raise ValueError("no test calls a function of the reference")


def _hands_over_objects(code: str, tests: list[str]) -> bool:
    """Whether a test gives the function a type, or an object of the program's own class: neither can leave it."""
    own = {node.name for node in ast.parse(code).body if isinstance(node, ast.ClassDef)}
    for test in tests:
        nodes = list(ast.walk(ast.parse(test)))
        called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
        for node in nodes:
            if isinstance(node, ast.Name) and (
                node.id in own
                or (id(node) not in called and isinstance(getattr(builtins, node.id, None), type))
            ):
                return True
    return False


def _calls(setup: str, tests: list[str]) -> tuple[Call, ...]:
    """Tests on objects of the program's own classes, which never leave it: only the values they give are compared."""
    calls = []
    for test in tests:
        statement = ast.parse(test).body[0]
        compared = statement.test if isinstance(statement, ast.Assert) else None
        if not isinstance(compared, ast.Compare) or [type(op) for op in compared.ops] != [ast.Eq]:
            raise ValueError(f"{test!r} is not an equality")
        expected = ast.literal_eval(compared.comparators[0])
        calls.append(Call(f"{setup}\n{ast.unparse(compared.left)}", expected))
    return tuple(calls)
