"""MultiPL-E (arXiv 2208.08227): HumanEval and MBPP in other languages, each judged by its own toolchain."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from engine.errors import WishError
from engine.evaluate.benchmarks.tasks import collect, demand_fields, demand_only_test, judge, tasks_file
from engine.evaluate.rows import from_file
from engine.evaluate.task import Task
from engine.sandbox import File, Program

__all__ = ["judge", "load", "program", "prompt"]

LANGUAGES = {
    "cpp": "cpp",
    "go": "go",
    "go_test.go": "go",
    "java": "java",
    "js": "javascript",
    "lua": "lua",
    "pl": "perl",
    "rs": "rust",
    "sh": "bash",
    "ts": "typescript",
}
"""MultiPL-E's names for those the sandbox speaks."""
FIELDS = {"name": str, "language": str, "prompt": str, "tests": str, "stop_tokens": list}
CPU_SECONDS = 10.0
"""A JVM or a shell that starts a process for each sum takes seconds on a small machine."""
JAVATUPLES = "javatuples.jar"
JAR_PLACES = ("/usr/share/java/javatuples.jar",)
"""Where Debian's libjavatuples-java puts what every Java prompt imports."""


def load(source: str | None, *, split: str = "test", limit: int | None = None) -> list[Task]:
    """Read the tasks; their groups are their languages, of which one file may mix several.

    Args:
        source: a JSONL file, gzipped or not, in MultiPL-E's format: its prompts with tests, or its results.
        split: `test`, which is also what `validation` gives: there is no other.
        limit: first this many tasks only.

    Raises:
        WishError: no file, or a row that is not a task (file and line are named).
    """
    where = "give one language of huggingface.co/datasets/nuprl/MultiPL-E as JSONL"
    demand_only_test(split, name="multipl-e")
    source = tasks_file(source, name="multipl-e", where=where)
    return collect(from_file(source), _task, limit=limit, source=source)


def prompt(task: Task) -> str:
    """What a base model continues."""
    return task.prompt


def program(task: Task, completion: str) -> Program:
    """The prompt continued, and the task's tests behind it; Java's prompts all import a library."""
    files = _javatuples() if task.language == "java" and "org.javatuples" in task.prompt else ()
    return Program(source=f"{task.prompt}{completion}\n", test=task.test, language=task.language, files=files)


@lru_cache(maxsize=1)
def _javatuples() -> tuple[File, ...]:
    for place in JAR_PLACES:
        try:
            with open(place, "rb") as file:
                return (File(JAVATUPLES, file.read()),)
        except OSError:
            continue
    raise WishError(
        "toolchain missing: MultiPL-E's Java programs import org.javatuples",
        f"install libjavatuples-java (looked for {', '.join(JAR_PLACES)})",
    )


def _task(row: Any, place: str) -> Task:
    demand_fields(row, place, FIELDS, of="MultiPL-E's format")
    language = LANGUAGES.get(row["language"])
    if language is None:
        raise WishError(
            f"{place}: the sandbox does not run MultiPL-E's {row['language']!r}",
            f"it runs {', '.join(LANGUAGES)}",
        )
    return Task(
        id=f"{row['language']}/{row['name']}",
        prompt=row["prompt"],
        entry_point=row["name"].split("_", 2)[-1],
        reference="",
        test=row["tests"],
        group=language,
        stop=tuple(str(stop) for stop in row["stop_tokens"]),
        language=language,
        cpu_seconds=CPU_SECONDS,
    )
