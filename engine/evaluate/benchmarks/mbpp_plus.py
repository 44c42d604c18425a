"""MBPP+ (arXiv 2305.01210): many more inputs than MBPP's, answered by the reference solution."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from engine.errors import WishError
from engine.evaluate.benchmarks import oracle
from engine.evaluate.benchmarks.mbpp import STOP, function_tested
from engine.evaluate.benchmarks.tasks import collect, demand_fields
from engine.evaluate.rows import from_file_or_hub
from engine.evaluate.task import Steps, Task
from engine.sandbox import Program

__all__ = ["judge", "load", "program", "prompt"]

HUB_ID = "evalplus/mbppplus"
SPLITS = {
    "test": ("base_input", "plus_input"),
    "validation": ("base_input", "plus_input"),
    "base": ("base_input",),
}
NATIVE = {
    "task_id": str,
    "prompt": str,
    "entry_point": str,
    "canonical_solution": str,
    "base_input": list,
    "plus_input": list,
}
ON_THE_HUB = {"task_id": int, "prompt": str, "code": str, "test": str, "test_list": list}
CPU_SECONDS = 20.0

_AS_A_SET = "set(got)"
_WHETHER_FOUND = "got if isinstance(got, bool) else got is not None"
COMPARED_AS = {
    "similar_elements": _AS_A_SET,
    "find_char_long": _AS_A_SET,
    "common_in_nested_lists": _AS_A_SET,
    "extract_singly": _AS_A_SET,
    "larg_nnum": _AS_A_SET,
    "intersection_array": _AS_A_SET,
    "find_dissimilar": _AS_A_SET,
    "Diff": _AS_A_SET,
    "check_str": _WHETHER_FOUND,
    "text_match_three": _WHETHER_FOUND,
    "text_starta_endb": _WHETHER_FOUND,
}
"""What is compared of `got`, the program's answer and the reference's, where that is not the answer itself: the order
is free, or a match is found. These are EvalPlus's rules, as are the next ones."""

_SLANTED = "2 * arguments[0] * ((arguments[0] / 2) ** 2 + arguments[1] ** 2) ** 0.5"
_PADDED = "(str(n).zfill(max(len(str(m)) for m in arguments)) for n in arguments)"
ALSO_RIGHT = {
    "are_equivalent": "True",
    "sum_div": "got == 0",
    "surface_Area": f"abs(got - round(arguments[0] ** 2 + {_SLANTED})) <= TOLERANCE",
    "digit_distance_nums": f"got == sum(abs(int(a) - int(b)) for a, b in zip(*{_PADDED}))",
}
"""What is right too where the task may be read in two ways, as an expression over `arguments` and `got`."""

_ADAPTED = "_compared"


def _tuples(values: Any) -> Any:
    return tuple(values) if isinstance(values, list) else values


def _nested(value: Any) -> Any:
    return tuple(map(_nested, value)) if isinstance(value, list) else value


def _within(values: Any) -> Any:
    return [_tuples(value) for value in values]


def _sets(values: Any) -> Any:
    return [set(value) if value else {} for value in values]


Conversion = Callable[[list[Any]], list[Any]]
CONVERSIONS: tuple[tuple[Conversion, tuple[int, ...]], ...] = (
    (
        lambda given: [_tuples(value) for value in given],
        (2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424)
        + (429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809),
    ),
    (
        lambda given: [_within(value) for value in given],
        (63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780),
    ),
    (lambda given: [_within(given[0]), *given[1:]], (75, 413, 444, 753)),
    (lambda given: [given[0], _tuples(given[1]), *given[2:]], (106, 750)),
    (lambda given: [_tuples(given[0]), *given[1:]], (250, 307, 405, 446, 617, 720, 763, 808)),
    (lambda given: [tuple(_within(value)) for value in given], (259, 278, 401, 445)),
    (lambda given: [_nested(value) for value in given], (580, 615, 791)),
    (lambda given: [{k: _tuples(v) for k, v in given[0].items()}, *given[1:]], (722,)),
    (lambda given: [_sets(given[0]), *given[1:]], (115,)),
    (lambda given: [float(given[0]), complex(given[1])], (124,)),
    (lambda given: [complex(given[0])], (252,)),
)
"""Which tasks of the native file take what JSON cannot spell: its lists and texts become tuples, sets, numbers."""


def load(source: str | None, *, split: str = "test", limit: int | None = None) -> list[Task]:
    """Read the tasks.

    Args:
        source: a JSONL file, gzipped or not, in EvalPlus's native format or in the hub's, or a hub id; None: the hub's.
        split: `test` (or `validation`): MBPP's inputs and the new ones; `base`: MBPP's alone, native format only.
        limit: first this many tasks only.

    Raises:
        WishError: no such file, dataset or split, or a row that is not a task (file and line are named).
    """
    if split not in SPLITS:
        raise WishError(f"MBPP+ has no split {split!r}", f"choose one of {', '.join(SPLITS)}")
    rows = from_file_or_hub(source, HUB_ID)
    return collect(rows, partial(_task, split=split), limit=limit, source=source or HUB_ID)


def prompt(task: Task) -> str:
    """What a base model continues: a docstring with the request and a test, which names the function."""
    return task.prompt


def program(task: Task, completion: str) -> Program:
    """The prompt continued, and a check of all inputs against what the reference gives for them."""
    bare = Program(task.prompt + completion, entry_point=task.entry_point, test=task.test)
    adapter = _adapter(task.entry_point)
    reference = replace(task, reference=task.reference + adapter, entry_point=_ADAPTED) if adapter else task
    return oracle.answered(bare, reference)


def judge(task: Task, program: Program) -> Steps:
    """One run decides."""
    if adapter := _adapter(task.entry_point):
        program = replace(program, source=program.source + adapter, entry_point=_ADAPTED)
    return (yield program)


def _adapter(name: str) -> str:
    """Source behind a program of what turns an answer into what is compared; empty: the answer is."""
    if name not in COMPARED_AS:
        return ""
    return f"\n\ndef {_ADAPTED}(*given):\n    got = {name}(*given)\n    return {COMPARED_AS[name]}\n"


def _task(row: Any, place: str, split: str) -> Task:
    native = not (isinstance(row, dict) and "test_list" in row)
    task = _native(row, place, SPLITS[split]) if native else _of_the_hub(row, place, split)
    if not task.entry_point.isidentifier():
        raise WishError(f"{place}: entry_point {task.entry_point!r} is no name", "name the function to test")
    return task


def _native(row: Any, place: str, parts: tuple[str, ...]) -> Task:
    demand_fields(row, place, NATIVE, of="EvalPlus's native format")
    number = row["task_id"].rpartition("/")[2]
    convert = next(
        (change for change, numbers in CONVERSIONS if number.isdecimal() and int(number) in numbers), list
    )
    try:
        inputs = [
            (part.removesuffix("_input"), list(convert(arguments)))
            for part in parts
            for arguments in row[part]
        ]
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise WishError(
            f"{place}: {row['task_id']} has inputs of another shape ({error})", "take the file as released"
        ) from None
    return _made(
        row["task_id"],
        row["prompt"],
        row["entry_point"],
        row["canonical_solution"],
        inputs,
        float(row.get("atol") or 0.0),
    )


def _of_the_hub(row: Any, place: str, split: str) -> Task:
    """A row of the hub's copy: its inputs stand in the source of its test, MBPP's own not told apart."""
    demand_fields(row, place, ON_THE_HUB, of="the hub's MBPP+")
    if split == "base":
        raise WishError(
            f"{place}: the hub's copy does not say which inputs are MBPP's own",
            "give MbppPlus.jsonl.gz of an EvalPlus release, or leave the split at test",
        )
    tests = [str(test) for test in row["test_list"]]
    try:
        name = function_tested(row["code"], tests)
        given, tolerance = _read_test(row["test"])
    except (SyntaxError, ValueError, TypeError, RecursionError) as error:
        raise WishError(f"{place}: a test cannot be read ({error})", "mend or remove the line") from None
    text = f'"""\n{row["prompt"].strip()}\n{tests[0]}\n"""\n'
    inputs = [("test", list(arguments)) for arguments in given]
    return _made(f"Mbpp/{row['task_id']}", text, name, row["code"].rstrip() + "\n", inputs, tolerance)


def _read_test(source: str) -> tuple[list[Any], float]:
    """The inputs and the tolerance of a hub row's test, which is never run."""
    given, tolerance = None, 0.0
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Assign(targets=[ast.Name("inputs")], value=value):
                given = ast.literal_eval(_Numbers().visit(value))
            case ast.Call(func=ast.Name("assertion"), args=[_, _, ast.Constant(float() | int() as number)]):
                tolerance = float(number)
    if not isinstance(given, list) or not given:
        raise ValueError("it has no list of inputs")
    return given, tolerance


class _Numbers(ast.NodeTransformer):
    """Spells the two numbers that are no literals."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in ("inf", "nan"):
            return ast.copy_location(ast.Constant(getattr(math, node.id)), node)
        return node


def _made(
    name: str, text: str, function: str, reference: str, inputs: list[tuple[str, list[Any]]], tolerance: float
) -> Task:
    rule = f"_same(got, wanted) or {ALSO_RIGHT[function]}" if function in ALSO_RIGHT else ""
    judged = reference + _adapter(function)  # so that another rule is another benchmark
    return Task(
        id=name,
        prompt=text,
        entry_point=function,
        reference=reference,
        test=oracle.check(inputs, judged, tolerance=tolerance, rule=rule),
        stop=STOP,
        cpu_seconds=CPU_SECONDS,
    )
