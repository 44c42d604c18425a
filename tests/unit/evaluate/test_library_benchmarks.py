"""BigCodeBench and DS-1000: judged beside the program; a task whose library is missing is no wrong answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from engine.errors import WishError
from engine.evaluate import Court, Settings, Task, evaluate, find
from engine.evaluate import judge as judging
from engine.evaluate.benchmarks import Benchmark
from engine.evaluate.benchmarks.tasks import third_party
from engine.evaluate.commands import benchmark as benchmark_command
from engine.evaluate.commands import score as score_command
from engine.evaluate.libraries import judged, missing, opened
from engine.generate import Generation, Request, extract
from engine.sandbox import Verdict

from .library_rows import ABSENT, CONTEXT, data_science, unit_tested

BIG, DS = find("bigcodebench"), find("ds1000")
MAKERS = {"bigcodebench": unit_tested, "ds1000": data_science}


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def load(benchmark: Benchmark, path: Path, *rows: dict[str, Any], split: str = "test") -> list[Task]:
    return benchmark.load(write(path, *rows), split=split)


def verdicts(benchmark: Benchmark, task: Task, *answers: str) -> list[Verdict]:
    trials = [(task, benchmark.program(task, answer)) for answer in answers]
    court = opened(Court(), [task])
    return [verdict for _, verdict in judging.judge(benchmark, len(trials), trials.__getitem__, court)]


def test_unit_tests_run_in_the_program_s_own_world(tmp_path: Path) -> None:
    (task,) = load(BIG, tmp_path / "t.jsonl", unit_tested())
    right, wrong, stub, leaves, broken = verdicts(
        BIG,
        task,
        task.reference,
        task.reference.replace("* SCALE", "* 2"),
        "    pass\n",
        "    import os\n    os._exit(0)\n",
        "    return (\n",
    )
    assert right.passed and right.form == "together", right
    assert wrong.name == "wrong" and "test_mean: AssertionError: 6.0 != 3.0" in wrong.detail, wrong
    assert (stub.name, leaves.name, broken.name) == ("wrong", "incomplete", "compile_error")


def test_a_request_in_words_is_answered_by_a_whole_program(tmp_path: Path) -> None:
    (task,) = load(BIG, tmp_path / "t.jsonl", unit_tested(), split="instruct")
    assert task.prompt == unit_tested()["instruct_prompt"] and task.prompt in task.question
    said = f"Here you are.\n\n```python\n{task.reference}```\n"
    right, from_chat, empty = verdicts(BIG, task, task.reference, extract(said, task, chat=True), "")
    assert right.passed and from_chat.passed and not empty.passed, from_chat


def test_an_answer_stands_in_its_place_and_is_read_too(tmp_path: Path) -> None:
    (task,) = load(DS, tmp_path / "t.jsonl", data_science())
    assert task.group == "Numpy/Origin" and task.requires == ("numpy",)
    said = "So:\n```python\nreturn np.flip(a)\n```"
    right, from_chat, wrong, forbidden, leaves, broken, margin = verdicts(
        DS,
        task,
        task.reference,
        extract(said, task, chat=True),
        "    return a\n",
        "    return np.array([a[-i - 1] for i in range(len(a))])\n",
        "    import os\n    os._exit(0)\n",
        "    return (\n",
        "return a[::-1]\n",
    )
    assert right.passed and right.form == "together" and from_chat.passed, (right, from_chat)
    assert wrong.name == "wrong" and forbidden.name == "wrong", (wrong, forbidden)
    assert leaves.name == "incomplete"
    assert broken.name == margin.name == "runtime_error" and "SyntaxError" in broken.detail


def test_a_text_that_closes_its_quotes_stays_a_text(tmp_path: Path) -> None:
    (task,) = load(DS, tmp_path / "t.jsonl", data_science())
    found = verdicts(
        DS, task, "    return a\n'''\nexec_test = print\n'''\n", '"""\nimport os\nos._exit(0)\n', "\ud800"
    )
    assert not any(verdict.passed or verdict.name == "infra" for verdict in found), found


def test_what_sources_import() -> None:
    source = "import os, numpy.linalg as la\nfrom PIL import Image\ndef f():\n    import yaml\n    from . import x\n"
    assert third_party(source, "no Python (", named=["json", "cv2"]) == ("PIL", "cv2", "numpy", "yaml")


def test_libraries_are_tried_in_the_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is installed and does not load is missing too."""
    (tmp_path / "temper_broken_library.py").write_text("import temper_part_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = [
        unit_tested(0),
        unit_tested(1, libs=f"['numpy', '{ABSENT}']"),
        unit_tested(2, libs="['temper_broken_library']"),
    ]
    tasks = load(BIG, tmp_path / "t.jsonl", *rows)
    lacking = missing(tasks, Court())
    assert lacking == {"Own/1": (ABSENT,), "Own/2": ("temper_broken_library",)}
    assert [task.id for task in judged(tasks, lacking)] == ["Own/0"]
    with pytest.raises(WishError, match=rf"none of the 1 tasks can be judged here.*{ABSENT} \(1\)"):
        judged(tasks[1:2], lacking)


def test_tasks_whose_library_is_missing_are_in_no_figure(tmp_path: Path) -> None:
    name, lacks = "ds1000", f"import {ABSENT}\n{CONTEXT}"
    data = write(tmp_path / "t.jsonl", data_science(0), data_science(1, code_context=lacks))
    tasks = DS.load(data)
    answers = [{"task_id": task.id, "completion": task.reference} for task in tasks]
    asked = ["--benchmark", name, "--data", data, "--workers", "1"]
    samples = write(tmp_path / "s.jsonl", *answers)
    result = CliRunner().invoke(score_command, [*asked, "--samples", samples, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["tasks"], found["samples"], found["passed"]) == (1, 1, 1)
    assert found["verdicts"] == {"passed": 1}
    assert found["not_judged"] == {"tasks": 1, "libraries": {ABSENT: 1}}
    assert any(f"libraries missing: {ABSENT} (1)" in note for note in found["notes"])
    samples = write(tmp_path / "s.jsonl", answers[1])
    result = CliRunner().invoke(score_command, [*asked, "--samples", samples])
    assert isinstance(result.exception, WishError) and ABSENT in str(result.exception)
    result = CliRunner().invoke(benchmark_command, ["validate", name, "--data", data, "--workers", "1"])
    assert result.exit_code == 0, result.output
    assert f"{ABSENT} (1)" in result.output and "reference  1 of 1 passed, wanted 1" in result.output


def test_an_evaluation_says_what_it_left_out(tmp_path: Path) -> None:
    tasks = load(DS, tmp_path / "t.jsonl", data_science())

    def answers(requests: Sequence[Request]) -> Iterator[Generation]:
        text = tasks[0].reference
        return (Generation(r.task_id, r.sample, r.seed, text, text, 1, "stop") for r in requests)

    summary = evaluate(
        tasks,
        "ds1000",
        Settings(model="own"),
        generator=answers,
        folder=tmp_path / "run",
        rank=0,
        world_size=1,
        barrier=lambda: None,
        ask=lambda task: (task.prompt, task.stop),
        chat=False,
        not_judged={"DS-1000/1": (ABSENT,)},
    )
    assert summary is not None and summary.found.figures.passed == 1
    assert f"1 task is not judged and is in no figure, libraries missing: {ABSENT} (1)" in summary.table()
    written = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert written["not_judged"] == {"tasks": 1, "libraries": {ABSENT: 1}}


@pytest.mark.parametrize(
    ("name", "changes", "match"),
    [
        ("bigcodebench", {"libs": ["numpy"]}, "BigCodeBench's format, libs missing"),
        ("bigcodebench", {"libs": "numpy"}, "its code cannot be read"),
        ("bigcodebench", {"test": "import unittest\n"}, "defines no class TestCases"),
        ("bigcodebench", {"test": "class TestCases(:"}, "its code cannot be read"),
        ("ds1000", {"metadata": "{}"}, "simplified format, metadata missing"),
        ("ds1000", {"metadata": {"problem_id": 1}}, "DS-1000's metadata, library missing"),
        ("ds1000", {"code_context": "x = 1\n"}, "code_context defines no test_execution"),
        ("ds1000", {"code_context": "def ("}, "code_context is no Python"),
    ],
)
def test_a_row_that_is_no_task_is_refused(
    name: str, changes: dict[str, Any], match: str, tmp_path: Path
) -> None:
    with pytest.raises(WishError, match=rf"t\.jsonl:1: .*{match}"):
        load(find(name), tmp_path / "t.jsonl", MAKERS[name](0, **changes))
    with pytest.raises(WishError, match="no split 'train'"):
        load(find(name), tmp_path / "t.jsonl", MAKERS[name](0), split="train")
