"""Your own tasks: a JSONL of prompts with hidden tests, as asserts, as a `check`, or as a script's input and output."""

from __future__ import annotations

import ast
from typing import Any

from engine.errors import WishError
from engine.evaluate.benchmarks import stdio
from engine.evaluate.benchmarks.tasks import asserts, collect, demand_fields, demand_only_test, tasks_file
from engine.evaluate.benchmarks.tasks import judge as judge_once
from engine.evaluate.rows import from_file
from engine.evaluate.task import Run, Steps, Task
from engine.sandbox import LANGUAGES, Program

__all__ = ["judge", "load", "program", "prompt"]

NEEDED: dict[str, type | tuple[type, ...]] = {"task_id": str, "prompt": str, "tests": (str, list)}
TEXTS = ("entry_point", "reference", "group", "context", "language", "comparison", "checker")
KNOWN = (*NEEDED, *TEXTS, "stop")
FORMS = (
    "give tests as a list of asserts, as a text that defines check(candidate), or as a list of "
    '{"stdin": ..., "stdout": ...}'
)


def load(source: str | None, *, split: str = "test", limit: int | None = None) -> list[Task]:
    """Read the tasks (the format: docs/how-to/own-benchmark.md).

    Args:
        source: a JSONL file, gzipped or not.
        split: `test`, which is also what `validation` gives: there is no other.
        limit: first this many tasks only.

    Raises:
        WishError: no file, or a row that is not a task (file and line are named).
    """
    demand_only_test(split, name="a benchmark of your own")
    source = tasks_file(source, name="a benchmark of your own", where="name it")
    return collect(from_file(source), _task, limit=limit, source=source)


def prompt(task: Task) -> str:
    """What a base model continues."""
    return task.prompt


def program(task: Task, completion: str) -> Program:
    """The prompt continued, with its test; a task of inputs and outputs is run as a script."""
    source = task.prompt + completion
    if task.runs:
        return Program(source, language=task.language)
    if task.language != "python":
        return Program(source, test=task.test, language=task.language)
    return Program(source, entry_point=task.entry_point, test=task.test, context=task.context)


def judge(task: Task, program: Program) -> Steps:
    """One run decides, or one for each pair of input and output."""
    return stdio.judge(task, program) if task.runs else judge_once(task, program)


def _task(row: Any, place: str) -> Task:
    demand_fields(row, place, NEEDED, of="your own format")
    _demand_known(row, place)
    language = row.get("language", "python")
    if language not in ("python", *LANGUAGES):
        raise WishError(
            f"{place}: there is no language {language!r}", f"choose one of python, {', '.join(LANGUAGES)}"
        )
    runs, test = _tests(row, place, language)
    comparison = row.get("comparison", "tokens")
    if comparison not in stdio.COMPARISONS:
        raise WishError(
            f"{place}: there is no comparison {comparison!r}", f"choose one of {', '.join(stdio.COMPARISONS)}"
        )
    checker = row.get("checker", "")
    if checker:
        _demand_checker(checker, place, runs)
    return Task(
        id=row["task_id"],
        prompt=row["prompt"],
        entry_point=row.get("entry_point", ""),
        reference=row.get("reference", ""),
        test=test,
        group=row.get("group", ""),
        stop=tuple(row.get("stop", ())),
        context=row.get("context", ""),
        runs=runs,
        comparison=comparison,
        checker=checker,
        language=language,
        output_kb=stdio.room(runs),
    )


def _demand_known(row: dict[str, Any], place: str) -> None:
    if unknown := [name for name in row if name not in KNOWN]:
        raise WishError(f"{place}: unknown {', '.join(unknown)}", f"a task knows {', '.join(KNOWN)}")
    wrong = [name for name in TEXTS if not isinstance(row.get(name, ""), str)]
    stop = row.get("stop", [])
    if wrong or not isinstance(stop, list) or not all(isinstance(text, str) for text in stop):
        raise WishError(
            f"{place}: {', '.join(wrong) or 'stop'} of another type",
            "give texts, and stop as a list of texts",
        )


def _tests(row: dict[str, Any], place: str, language: str) -> tuple[tuple[Run, ...], str | None]:
    """The runs of a script, or the source of a test."""
    tests = row["tests"]
    name = row.get("entry_point", "")
    if isinstance(tests, str) and tests.strip():
        if language == "python":
            _demand_python(tests, place)
            if not _defines_check(tests):
                raise WishError(f"{place}: tests defines no check(candidate)", FORMS)
            _demand_name(name, place)
        return (), tests
    if isinstance(tests, list) and tests and all(isinstance(test, str) for test in tests):
        if language != "python":
            raise WishError(f"{place}: asserts are Python's", "give tests in that language as one text")
        _demand_name(name, place)
        for test in tests:
            _demand_python(test, place)
        return (), asserts(name, tests)
    if isinstance(tests, list) and tests and all(isinstance(test, dict) for test in tests):
        for test in tests:
            if set(test) != {"stdin", "stdout"} or not all(isinstance(text, str) for text in test.values()):
                raise WishError(f"{place}: a test of input and output is {test!r:.80}", FORMS)
        return tuple(Run(test["stdin"], test["stdout"]) for test in tests), None
    raise WishError(f"{place}: tests is {tests!r:.80}", FORMS)


def _demand_checker(checker: str, place: str, runs: tuple[Run, ...]) -> None:
    if not runs:
        raise WishError(
            f"{place}: a checker and no runs to check", "give tests as a list of inputs and outputs"
        )
    _demand_python(checker, place)
    if not _defines_check(checker):
        raise WishError(
            f"{place}: checker defines no check(stdin, printed, expected)",
            "define it; it gives True or False for each run",
        )


def _defines_check(source: str) -> bool:
    return any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in ast.parse(source).body)


def _demand_name(name: str, place: str) -> None:
    if not name.isidentifier():
        raise WishError(f"{place}: entry_point {name!r} is no name", "name the function to test")


def _demand_python(test: str, place: str) -> None:
    try:
        ast.parse(test)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise WishError(f"{place}: {test!r:.60} is no Python ({error})", "mend it") from None
