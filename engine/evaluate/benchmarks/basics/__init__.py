"""`basics`: small Python tasks made by a seeded generator, with combinations and whole families held out."""

from engine.evaluate.benchmarks.basics.benchmark import (
    GROUPS,
    STOP,
    Entry,
    Row,
    catalog,
    load,
    program,
    prompt,
    tasks,
    training_rows,
)
from engine.evaluate.benchmarks.basics.compose import draw
from engine.evaluate.benchmarks.basics.form import Form
from engine.evaluate.benchmarks.basics.inputs import function_call
from engine.evaluate.benchmarks.basics.operation import Operation, operation
from engine.evaluate.benchmarks.tasks import judge

__all__ = [
    "GROUPS",
    "STOP",
    "Entry",
    "Form",
    "Operation",
    "Row",
    "catalog",
    "draw",
    "function_call",
    "judge",
    "load",
    "operation",
    "program",
    "prompt",
    "tasks",
    "training_rows",
]
