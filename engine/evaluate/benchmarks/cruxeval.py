"""CRUXEval (arXiv 2401.03065): what a function returns, or what it was given, said without running it."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from engine.errors import WishError
from engine.evaluate.benchmarks.tasks import collect, demand_fields
from engine.evaluate.rows import from_file_or_hub
from engine.evaluate.task import Steps, Task
from engine.sandbox import Program

__all__ = ["judge", "load", "program", "prompt"]

HUB_ID = "cruxeval-org/cruxeval"
SPLITS = {"test": "output", "validation": "output", "output": "output", "input": "input"}
FIELDS = {"id": str, "code": str, "input": str, "output": str}
NAME = "f"
"""Of every function."""
STOP = ("\n",)
LONGEST = 20_000
"""Characters of an answer; the longest right one has some hundreds."""
DEEPEST = 100
OPENS, CLOSES = "[ANSWER]", "[/ANSWER]"
"""What the paper's prompts have answers stand between."""
SHOWN = 60

OUTPUT = """{code}

# What f returns here, as a literal:
assert f({input}) =="""
INPUT = """{code}

# Arguments, as literals, for which f returns what stands on the left:
assert {output} == f("""
QUESTION_OUTPUT = """Here is a Python function, right or wrong as it may be.

```python
{code}
```

What does `f({input})` return? Answer with that value alone, written as a Python literal, in one fenced block.
"""
QUESTION_INPUT = """Here is a Python function, right or wrong as it may be.

```python
{code}
```

Find arguments for which it returns `{output}`; any will do. Answer with the call `f(...)` alone, its arguments
written as Python literals, in one fenced block.
"""


def load(source: str | None, *, split: str = "test", limit: int | None = None) -> list[Task]:
    """Read the tasks.

    Args:
        source: a JSONL file, gzipped or not, in CRUXEval's format, or a hub id; None: the hub's original.
        split: `output` (also `test` and `validation`): CRUXEval-O; `input`: CRUXEval-I.
        limit: first this many tasks only.

    Raises:
        WishError: no such file, dataset or split, or a row that is not a task (file and line are named).
    """
    if split not in SPLITS:
        raise WishError(f"CRUXEval has no split {split!r}", f"choose one of {', '.join(SPLITS)}")
    rows = from_file_or_hub(source, HUB_ID)
    return collect(rows, partial(_task, kind=SPLITS[split]), limit=limit, source=source or HUB_ID)


def prompt(task: Task) -> str:
    """What a base model continues: the function, and an assert that lacks the answer."""
    return task.prompt


def program(task: Task, completion: str) -> Program:
    """The answer itself: a literal is no program, and `judge` reads it as one."""
    return Program(completion)


def judge(task: Task, program: Program) -> Steps:
    """The task's own function is run, never what the answer says: that is data, or it is wrong."""
    try:
        given = _given(program.source, of_input=task.group == "input")
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        verdict = yield Program(task.context)
        why = f"the answer is not written in literals: {str(error) or type(error).__name__}"
        return verdict if verdict.name == "infra" else replace(verdict, name="wrong", detail=why)
    return (yield Program(task.context, entry_point=NAME, test=f"{given}\n{task.test}"))


def _given(answer: str, *, of_input: bool) -> str:
    """The answer as the source that a test needs; raises what `ast` does for one that is no literal."""
    if len(answer) > LONGEST:
        raise ValueError(f"it has {len(answer):,} characters")
    if of_input:
        return f"def ask(f):\n    return f({_arguments(answer)})\n"
    return f"answer = {_value(answer)}\n"


def _value(answer: str) -> str:
    """The literal of an answer, which may repeat the assert it completes."""
    text = _tagged(answer).removeprefix("==").strip()
    for source in (text, _first_line(text)):
        node = _first(source)
        if isinstance(node, ast.Compare) and _is_call(node.left):
            node = node.comparators[0]
        if node is not None:
            return _spelt(node)
    raise ValueError("it holds no value")


def _arguments(answer: str) -> str:
    """The arguments of an answer: those of a call, with or without what opens it, or of the assert it completes."""
    text = _tagged(answer)
    opened, line = f"{NAME}({text}", _first_line(text)
    # Whole, and where that is no Python the first line; with or without the brackets around the arguments.
    attempts = (text, opened, f"{opened})", line, _first_line(opened), f"{NAME}({line})")
    for attempt in attempts if text else ():
        node = _first(attempt)
        if isinstance(node, ast.Compare):
            node = next(filter(_is_call, (node.left, *node.comparators)), None)
        if _is_call(node):
            named = {part.arg: _spelt(part.value) for part in node.keywords}
            if None in named or len(named) < len(node.keywords):
                raise ValueError("its named arguments cannot be handed over")
            return ", ".join([*map(_spelt, node.args), *(f"{name}={value}" for name, value in named.items())])
    raise ValueError("it holds no call of f")


def _tagged(answer: str) -> str:
    """What stands between the first tags of an answer, where it has them."""
    opened, closed, inside = answer.partition(OPENS)
    return (inside if closed else opened).partition(CLOSES)[0].strip()


def _first_line(text: str) -> str:
    """The first line as Python counts them: it ends outside brackets and texts."""
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NEWLINE:
                return "\n".join(text.split("\n")[: token.end[0]])
    except (tokenize.TokenError, SyntaxError):
        pass  # what follows a whole line is none of its business, but this is no whole line
    return text.partition("\n")[0]


def _first(text: str) -> Any:
    """The first expression or assert of source; None where there is none. Whatever follows is no answer any more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            body = ast.parse(text).body
        except SyntaxError:
            return None
    for statement in body:
        match statement:
            case ast.Expr(node) | ast.Assert(node):
                return node
    return None


def _is_call(node: Any) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == NAME


def _spelt(node: ast.expr) -> str:
    """A literal in one spelling; raises ValueError for what is none."""
    text = ast.unparse(node)
    try:
        _demand_plain(ast.literal_eval(node))
    except (ValueError, TypeError):
        raise ValueError(f"{text if len(text) <= SHOWN else text[:SHOWN] + '...'} is none") from None
    return text


def _demand_plain(value: Any, depth: int = 0) -> None:
    """Raise ValueError for what cannot be handed to a program: `...`, or data nested without end."""
    if value is Ellipsis or depth > DEEPEST:
        raise ValueError
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple | set):
        for part in value:
            _demand_plain(part, depth + 1)


def _task(row: Any, place: str, kind: str) -> Task:
    demand_fields(row, place, FIELDS, of="CRUXEval's format")
    code, given, output = row["code"].rstrip(), row["input"].strip(), row["output"].strip()
    for text, what in ((f"{NAME}({given})", "input"), (output, "output")):
        try:
            ast.parse(text, mode="eval")
        except (SyntaxError, ValueError, RecursionError) as error:
            raise WishError(
                f"{place}: its {what} is no Python ({error})", "mend or remove the line"
            ) from None
    shape, question, answer = FORMS[kind]
    compared = f"ask(candidate) == {output}" if kind == "input" else f"candidate({given}) == answer"
    return Task(
        id=row["id"],
        prompt=shape.format(code=code, input=given, output=output),
        entry_point=NAME,
        reference=answer(given, output),
        test=f"def check(candidate):\n    assert {compared}\n",
        group=kind,
        stop=STOP,
        context=f"{code}\n",
        question=question.format(code=code, input=given, output=output),
    )


FORMS: dict[str, tuple[str, str, Callable[[str, str], str]]] = {
    "output": (OUTPUT, QUESTION_OUTPUT, lambda given, output: f" {output}"),
    "input": (INPUT, QUESTION_INPUT, lambda given, output: f"{given})"),
}
"""What is asked of a base model and of a chat model, and what answers it."""
