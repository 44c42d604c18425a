"""The workloads: which programs, what their verdicts should be, and under which limit."""

from __future__ import annotations

import dataclasses
import json
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from score_codegen16b import convert

from engine.evaluate.benchmarks import humaneval
from engine.evaluate.task import Task as Question

from .numpy_programs import PROGRAMS
from .task import Setting, Task

REPEATS = 6
RESIDENT_REPEATS = 2
RESIDENT_MB = 1100
NUMPY_REPEATS = 12
SHARE = 0.1
"""Of the mixed programs, how many loop for ever; as many more are wrong."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A setting and how to speak of it."""

    name: str
    about: str
    setting: Setting

    def at_most(self, limit: int | None) -> Workload:
        """The same with at most so many programs, spread evenly over the order."""
        order = self.setting.order
        if limit is None or limit >= len(order):
            return self
        kept = [order[place * len(order) // limit] for place in range(limit)]
        return dataclasses.replace(self, setting=dataclasses.replace(self.setting, order=kept))


def canonical(data: Path, repeats: int) -> Setting:
    """HumanEval's own solutions, all right, so often."""
    tasks = [_task(question, question.prompt + question.reference) for question in _questions(data)]
    return Setting(tasks, list(range(len(tasks))) * repeats)


def plain(data: Path) -> Workload:
    setting = canonical(data, REPEATS)
    about = (
        f"HumanEval's canonical solutions, {REPEATS} times: {len(setting.order)} right programs, limit 3 s."
    )
    return Workload("humaneval", about, setting)


def resident(data: Path) -> Workload:
    setting = dataclasses.replace(canonical(data, RESIDENT_REPEATS), ballast_mb=RESIDENT_MB)
    about = (
        f"HumanEval's canonical solutions, {RESIDENT_REPEATS} times, from a process that already holds "
        f"{RESIDENT_MB:,} MiB, limit 3 s."
    )
    return Workload("resident", about, setting)


def mixed(data: Path) -> Workload:
    """Loops and wrong programs at places that a fixed seed draws, so they fall on no worker's beat."""
    questions = _questions(data)
    whole = canonical(data, REPEATS)
    loops = [_task(q, f"{q.prompt}    while True:\n        pass\n", "loop") for q in questions]
    wrong = [_task(q, f"{q.prompt}    return None\n", "wrong") for q in questions]
    size, count = len(questions), int(len(whole.order) * SHARE)
    places = random.Random(0).sample(range(len(whole.order)), 2 * count)
    order = list(whole.order)
    for number, place in enumerate(places):
        order[place] += size if number < count else 2 * size
    about = (
        f"The same {len(order)} programs with {count} of them infinite loops and {count} wrong. The limit is "
        "1 s, not 3 s, because the loops' limits are most of the time."
    )
    return Workload("mixed", about, Setting(whole.tasks + loops + wrong, order, limit_seconds=1.0))


def codegen(data: Path) -> Workload:
    """What a model wrote. Which of it is right is not published, so judges are held against each other."""
    questions = {question.id: question for question in _questions(data)}
    with tempfile.TemporaryDirectory() as folder:
        lines = convert(data, Path(folder), None).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    tasks = [_task(questions[row["task_id"]], row["solution"], "unknown") for row in rows]
    about = (
        "Programs that CodeGen-16B-mono wrote for HumanEval, limit 3 s; the right verdict is taken to be the "
        "one most judges gave."
    )
    return Workload("codegen", about, Setting(tasks, list(range(len(tasks)))))


def arrays(data: Path) -> Workload:
    tasks = [Task(program) for program in PROGRAMS]
    setting = Setting(tasks, list(range(len(tasks))) * NUMPY_REPEATS, packages=("numpy",))
    about = (
        f"{len(tasks)} small scripts that use numpy, {NUMPY_REPEATS} times, all right, limit 3 s; judges "
        "that fork have numpy imported before."
    )
    return Workload("numpy", about, setting)


WORKLOADS: dict[str, Callable[[Path], Workload]] = {
    "humaneval": plain,
    "mixed": mixed,
    "codegen": codegen,
    "numpy": arrays,
    "resident": resident,
}


def _questions(data: Path) -> list[Question]:
    return humaneval.load(str(data / "humaneval" / "HumanEval.jsonl.gz"))


def _task(question: Question, source: str, kind: str = "right") -> Task:
    program = humaneval.program(question, "")
    return Task(source, question.test or "", question.entry_point, program.context, kind)
