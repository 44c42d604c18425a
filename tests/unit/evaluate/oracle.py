"""An evaluation with a known answer for each request, as a process that can be killed.

It stands for a model: what it answers depends on the request alone. `oracle.py DATA FOLDER RANK SIZE PAUSE`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from engine.evaluate import Court, Settings, Summary, evaluate
from engine.evaluate.benchmarks import humaneval
from engine.evaluate.task import Task
from engine.generate import Generation, Request
from engine.sandbox import Limits

SAMPLES = 6
WRONG = ("    return None\n", "    return undefined_name\n", "    return (\n", "    raise ValueError('no')\n")


def answer(request: Request, references: dict[str, str]) -> Generation:
    """Right for some seeds, wrong in different ways for others."""
    kind = request.seed % 7
    text = references[request.task_id] if kind > 3 else WRONG[kind]
    finish = "length" if kind == 3 else "stop"
    return Generation(request.task_id, request.sample, request.seed, text, text, len(text), finish)


def as_is(task: Task) -> tuple[str, tuple[str, ...]]:
    """A base model goes on with the prompt."""
    return task.prompt, task.stop


def settings(model: str = "oracle") -> Settings:
    court = Court(Limits(cpu_seconds=2, wall_seconds=10), workers=2)
    return Settings(
        model=model, samples=SAMPLES, k=(1, 3), temperature=0.8, max_new_tokens=64, seed=11, court=court
    )


def draw(
    data: Path,
    folder: Path,
    rank: int = 0,
    size: int = 1,
    *,
    pause: float = 0.0,
    barrier: Callable[[], None] = lambda: None,
    model: str = "oracle",
    asked: list[Request] | None = None,
) -> Summary | None:
    """Evaluate the oracle; `asked` collects the requests it was given."""
    tasks = humaneval.load(str(data))
    references = {task.id: task.reference for task in tasks}

    def generator(requests: Sequence[Request]) -> Iterator[Generation]:
        for request in requests:
            time.sleep(pause)
            if asked is not None:
                asked.append(request)
            yield answer(request, references)

    return evaluate(
        tasks,
        "humaneval",
        settings(model),
        generator=generator,
        folder=folder,
        rank=rank,
        world_size=size,
        barrier=barrier,
        ask=as_is,
        chat=False,
    )


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), pause=float(sys.argv[5]))
