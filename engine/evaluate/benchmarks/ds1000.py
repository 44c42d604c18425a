"""DS-1000 (arXiv 2211.11501): data science in seven libraries, judged by each task's own code beside the program."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import Any

from engine.errors import WishError
from engine.evaluate.benchmarks.tasks import collect, demand_fields, demand_only_test, third_party
from engine.evaluate.rows import from_file_or_hub
from engine.evaluate.task import Steps, Task
from engine.sandbox import Program

__all__ = ["judge", "load", "program", "prompt"]

HUB_ID = "xlangai/DS-1000"
FIELDS = {"prompt": str, "reference_code": str, "code_context": str, "metadata": dict}
STOP = ("</code>", "# SOLUTION END", "\nEND SOLUTION", "\n```")
RUN, READ = "test_execution", "test_string"
"""Functions of a task's code: the one runs the answer in its place, the other, which few have, reads its text."""
PLACE = "[insert]"
CPU_SECONDS = 30.0
"""Importing the libraries alone takes seconds."""
MEMORY_MB = 4096

QUESTION = """{prompt}

Answer with the code that stands in the place of the solution, without what is there already, in one fenced block.
"""


def load(source: str | None, *, split: str = "test", limit: int | None = None) -> list[Task]:
    """Read the tasks; their groups are their libraries, and in these how a task was varied (`Pandas/Origin`).

    Args:
        source: a JSONL file, gzipped or not, in DS-1000's simplified format, or a hub id; None: the hub's original.
        split: `test`, which is also what `validation` gives: there is no other.
        limit: first this many tasks only.

    Raises:
        WishError: no such file, dataset or split, or a row that is not a task (file and line are named).
    """
    demand_only_test(split, name="DS-1000")
    return collect(from_file_or_hub(source, HUB_ID), _task, limit=limit, source=source or HUB_ID)


def prompt(task: Task) -> str:
    """What a base model continues: the question, which ends where the solution is to stand."""
    return task.prompt


def program(task: Task, completion: str) -> Program:
    """The answer itself; `judge` puts it where it belongs."""
    return Program(completion)


def judge(task: Task, program: Program) -> Steps:
    """The task's code runs the answer's text in its own world, once for each of its cases, then may read it."""
    test = f"{task.test}\n\nSOLUTION = {program.source!r}\n{RUN}(SOLUTION)\n"
    if READ in _defined(str(task.test)):
        test += f"{READ}(SOLUTION)\n"
    return (yield replace(program, source="", test=test, together=True))


def _defined(source: str) -> set[str]:
    return {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}


def _task(row: Any, place: str) -> Task:
    demand_fields(row, place, FIELDS, of="DS-1000's simplified format")
    facts, code = row["metadata"], row["code_context"]
    demand_fields(facts, place, {"problem_id": int, "library": str}, of="DS-1000's metadata")
    try:
        lacks = RUN not in _defined(code)
        used = third_party(code, *_world(code), row["reference_code"])
    except (SyntaxError, ValueError, RecursionError) as error:
        raise WishError(f"{place}: code_context is no Python ({error})", "mend or remove the line") from None
    if lacks:
        raise WishError(
            f"{place}: code_context defines no {RUN}", "give the simplified format, as the hub has it"
        )
    kind = facts.get("perturbation_type")
    return Task(
        id=f"DS-1000/{facts['problem_id']}",
        prompt=row["prompt"],
        entry_point=RUN,
        reference=row["reference_code"],
        test=code,
        group=f"{facts['library']}/{kind}" if kind else facts["library"],
        stop=STOP,
        cpu_seconds=CPU_SECONDS,
        memory_mb=MEMORY_MB,
        requires=used,
        question=QUESTION.format(prompt=row["prompt"].strip()),
    )


def _world(code: str) -> list[str]:
    """The sources an answer is put into, for what they import: texts with a place for it."""
    texts = [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
    return [
        text.replace(PLACE, f"{indent}pass")
        for text in texts
        if isinstance(text, str) and "\n" in text and PLACE in text
        for indent in ("", " " * 4, " " * 8)
    ]
