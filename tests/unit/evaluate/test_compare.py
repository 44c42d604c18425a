"""Two real evaluations compared: which tasks changed, where each differs, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from engine.errors import WishError
from engine.evaluate import Court, Settings, Task, evaluate, find
from engine.evaluate.commands import score as score_command
from engine.evaluate.compare import Comparison, compare
from engine.evaluate.compare.commands import compare as compare_command
from engine.generate import Generation, Request

TASKS = find("basics").load(None, limit=12)
SETTINGS = Settings(model="one", court=Court(workers=2))

Answer = Callable[[Task, int], str]


def right(task: Task, sample: int) -> str:
    return task.reference


def wrong_from(first: int) -> Answer:
    """Right for the tasks before that number."""
    return lambda task, sample: task.reference if TASKS.index(task) < first else "    return undefined_name\n"


def evaluated(folder: Path, answer: Answer, settings: Settings = SETTINGS, *, chat: bool = False) -> Path:
    """A real evaluation of a model with known answers."""
    by_id = {task.id: task for task in TASKS}

    def generator(requests: Sequence[Request]) -> Iterator[Generation]:
        for request in requests:
            text = answer(by_id[request.task_id], request.sample)
            yield Generation(request.task_id, request.sample, request.seed, text, text, len(text), "stop")

    evaluate(
        TASKS, "basics", settings, generator=generator, folder=folder, rank=0, world_size=1,
        barrier=lambda: None, ask=lambda task: (task.prompt, task.stop), chat=chat,
    )  # fmt: skip
    return folder


def scored(folder: Path, rows: list[dict[str, str]], *more: str) -> Path:
    """What `temper score --out` leaves."""
    samples = folder.with_suffix(".jsonl")
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--benchmark", "basics", "--samples", str(samples), "--out", str(folder), *more]
    result = CliRunner().invoke(score_command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder


def edited(folder: Path, copy: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy with every line of results.jsonl changed in place."""
    shutil.copytree(folder, copy)
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    for line in lines:
        change(line)
    (copy / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = json.loads((copy / "summary.json").read_text())
    if "results_sha256" in summary:
        digest = hashlib.sha256((copy / "results.jsonl").read_bytes()).hexdigest()
        (copy / "summary.json").write_text(json.dumps(summary | {"results_sha256": digest}))
    return copy


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that solves the first five of twelve tasks."""
    return evaluated(tmp_path_factory.mktemp("base") / "base", wrong_from(5))


@pytest.fixture(scope="module")
def better(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that solves the first eleven."""
    return evaluated(
        tmp_path_factory.mktemp("better") / "better", wrong_from(11), replace(SETTINGS, model="two")
    )


def places(found: Comparison) -> list[tuple[str, list[str]]]:
    return [(flip.task_id, [change.where for change in flip.changes]) for flip in found.flips]


def run(*words: object) -> Result:
    return CliRunner().invoke(compare_command, list(map(str, words)))


def test_gained_tasks_are_named_with_the_test_and_the_interval(base: Path, better: Path) -> None:
    found = compare(base, better)
    assert places(found) == [(task.id, ["generation"]) for task in TASKS[5:11]]
    assert all(flip.gained and (flip.passed_a, flip.passed_b) == (0, 1) for flip in found.flips)
    result = found.result
    assert (result.a, result.b, result.difference) == (5 / 12, 11 / 12, 0.5)
    assert (result.test, result.p_value, result.differs) == ("McNemar's exact test", 0.03125, True)
    assert 0.1 < result.low < 0.5 < result.high < 0.9
    assert (found.joined, found.same_programs) == (12, 6)
    assert [(one.name, one.a, one.b) for one in found.settings] == [("model", "one", "two")]
    back = compare(better, base)
    assert [flip.gained for flip in back.flips] == [False] * 6 and back.result.lost == 6
    assert (back.result.low, back.result.high) == (pytest.approx(-result.high), pytest.approx(-result.low))


def test_another_rule_finds_another_program_in_the_same_text(tmp_path: Path) -> None:
    def fenced(task: Task, sample: int) -> str:
        return f"Sure, here it is:\n\n```python\n{task.prompt}{task.reference}```\n"

    asked = evaluated(tmp_path / "asked", fenced, chat=True)
    found = compare(evaluated(tmp_path / "continued", fenced), asked)
    assert places(found) == [(task.id, ["extraction"]) for task in TASKS]
    assert found.where == {"extraction": 12} and found.same_programs == 0
    assert [(one.name, one.a, one.b) for one in found.settings] == [("chat", False, True)]


def test_the_same_program_under_other_limits(tmp_path: Path) -> None:
    def hungry(task: Task) -> str:
        return f"{task.prompt}{task.reference}\n\nROOM = bytearray(200 << 20)\n"

    rows = [{"task_id": task.id, "solution": hungry(task)} for task in TASKS[:2]]
    rows += [{"task_id": task.id, "completion": task.reference} for task in TASKS[2:4]]
    tight = scored(tmp_path / "tight", rows, "--memory-mb", "64")
    found = compare(tight, scored(tmp_path / "wide", rows, "--memory-mb", "512"))
    assert places(found) == [(task.id, ["limits"]) for task in TASKS[:2]]
    assert found.flips[0].changes[0].a == "memory_limit"
    assert [(one.name, one.a, one.b) for one in found.settings] == [("limits.memory_mb", 64, 512)]
    assert found.result.tasks == 4 and not found.result.differs


def test_limits_that_tasks_raised_are_what_held(tmp_path: Path) -> None:
    rows = [{"task_id": task.id, "completion": task.reference} for task in TASKS[:2]]

    def judged(name: str, line: str, cpu_seconds: Any) -> Path:
        """As another version of the benchmark, whose tasks need more, would have left it."""
        folder = scored(tmp_path / name, rows, "--cpu-seconds", "2")
        summary = json.loads((folder / "summary.json").read_text())
        summary["limits"] |= {"cpu_seconds": cpu_seconds}
        (folder / "summary.json").write_text(json.dumps(summary))
        results = (folder / "results.jsonl").read_text().replace('"passed"', line, 1)
        (folder / "results.jsonl").write_text(results)
        return folder

    found = compare(judged("a", '"cpu_limit"', 2.0), judged("b", '"passed"', [2.0, 20.0]))
    assert places(found) == [(TASKS[0].id, ["limits"])]
    assert [(one.name, one.a, one.b) for one in found.settings] == [
        ("in force: cpu_seconds", 2.0, [2.0, 20.0])
    ]


def test_a_program_of_chance_differs_in_its_execution(tmp_path: Path) -> None:
    rows = [
        {
            "task_id": task.id,
            "solution": f"import os\n\n{task.prompt}{task.reference}\n\nif os.urandom(1)[0] & 1:\n"
            f"    {task.entry_point} = None\n",
        }
        for task in find("basics").load(None, limit=24)
    ]
    found = compare(scored(tmp_path / "once", rows), scored(tmp_path / "again", rows))
    assert found.flips and found.where == {"execution": len(found.flips)}
    assert found.same_programs == 24 and found.settings == ()


def test_samples_of_a_file_do_not_tell_their_text(base: Path, tmp_path: Path) -> None:
    # The same benchmark as a whole: an evaluation of some of its tasks has another hash.
    rows = [{"task_id": task.id, "completion": task.reference} for task in TASKS]
    a, b = scored(tmp_path / "a", [row | {"completion": ""} for row in rows]), scored(tmp_path / "b", rows)
    found = compare(a, b)
    assert places(found) == [(task.id, ["program"]) for task in TASKS]

    def forget(line: dict[str, Any]) -> None:
        del line["program_sha256"]

    assert compare(edited(a, tmp_path / "old", forget), b).where == {"unknown": 12}
    with pytest.raises(WishError, match=r"other tasks or tests of basics: sha256 \w{12} and \w{12}: .*limit"):
        compare(base, b)


def test_several_samples_a_task_and_of_unlike_number(tmp_path: Path) -> None:
    def mixed(task: Task, sample: int) -> str:
        return task.reference if sample <= TASKS.index(task) % 4 else "    return None\n"

    a = evaluated(tmp_path / "a", mixed, replace(SETTINGS, samples=4, k=(1, 2)))
    b = evaluated(tmp_path / "b", right, replace(SETTINGS, samples=2))
    found = compare(a, b)
    assert found.result.test == "paired sign-flip test" and found.result.exact
    # Tasks with 1, 2 and 3 of 4 right are gained; of those with 2 and 3 only samples differ that B has not drawn.
    assert found.result.gained == 9 and found.result.p_value == 2 / 2**9
    assert found.where == {"generation": 3, "samples": 6}
    assert (found.flips[0].passed_a, found.flips[0].samples_a) == (1, 4)
    assert found.joined == 24
    assert any("A has 4 samples a task and B 2" in note for note in found.notes())
    summary = json.loads((a / "summary.json").read_text())
    assert summary["pass_hat_k"]["2"]["value"] == pytest.approx((0 + 1 / 6 + 1 / 2 + 1) / 4)
    # One of four right loses the vote, two of four tie and came first.
    assert summary["majority"]["value"] == 0.75
    assert "majority" not in json.loads((b / "summary.json").read_text())


def test_nothing_differs(base: Path) -> None:
    found = compare(base, base)
    assert (found.flips, found.result.p_value, found.result.differs) == ((), 1.0, False)
    assert found.result.low < 0 < found.result.high
    result = run(base, base)
    assert "No evidence of a difference (McNemar's exact test, p = 1; 0 gained, 0 lost)" in result.stdout
    assert "12 of 12 samples are the same program" in result.stdout
    assert "A and B are the same folder" in result.stderr


def test_folders_of_before_the_hashes_are_read_by_their_journals(
    base: Path, better: Path, tmp_path: Path
) -> None:
    def forget(line: dict[str, Any]) -> None:
        for name in [name for name in line if name.endswith("_sha256")]:
            del line[name]

    old, older = edited(base, tmp_path / "old", forget), edited(base, tmp_path / "older", forget)
    assert places(compare(old, better)) == places(compare(base, better))
    for file in older.glob("generations-*"):
        file.unlink()
    (older / "summary.json").unlink()
    found = compare(older, better)
    assert found.where == {"program": 6} and found.same_programs == 6
    assert any("A has no summary.json" in note for note in found.notes())


def test_what_the_sandbox_failed_on_and_what_one_side_lacks_is_left_out_and_said(
    base: Path, better: Path, tmp_path: Path
) -> None:
    def fail(line: dict[str, Any]) -> None:
        if line["task_id"] == TASKS[7].id:
            line["verdict"] = "infra"

    failed = edited(better, tmp_path / "failed", fail)
    summary = json.loads((failed / "summary.json").read_text()) | {"samples": 11, "unscored": 1}
    (failed / "summary.json").write_text(json.dumps(summary))
    found = compare(base, failed)
    assert (found.result.tasks, found.unscored) == (11, (TASKS[7].id,))
    notes = "\n".join(found.notes())
    assert (
        "B: the sandbox failed on 1 samples" in notes and "1 tasks have no scored sample on one side" in notes
    )
    rows = [{"task_id": task.id, "completion": task.reference} for task in TASKS]
    found = compare(scored(tmp_path / "a", rows[:8]), scored(tmp_path / "b", rows[2:]))
    assert found.only_a == tuple(task.id for task in TASKS[:2])
    assert found.only_b == tuple(task.id for task in TASKS[8:])
    assert found.result.tasks == 6
    assert f"2 tasks are in A alone and in no figure: {TASKS[0].id}, {TASKS[1].id}" in [*found.notes()]


def test_table_markdown_and_json(base: Path, better: Path) -> None:
    text = run(base, better)
    assert text.exit_code == 0, text.output
    assert "pass@1 41.67% in A, 91.67% in B. Difference +50.00 points, 95 % interval +" in text.stdout
    assert "Evidence of a difference: B passes more (McNemar's exact test, p = 0.0312" in text.stdout
    assert "6 tasks changed: 6 gained, 0 lost. Where: generation 6." in text.stdout
    row = next(line for line in text.stdout.splitlines() if line.strip().startswith(TASKS[5].id))
    assert row.split()[1:4] == ["0/1", "1/1", "generation"] and row.endswith("runtime_error to passed")
    assert "Evidence of a difference: A passes more" in run(better, base).stdout
    marked = run(base, better, "--markdown").stdout
    assert "| task | A | B | where | verdicts |\n| --- | --- | --- | --- | --- |\n" in marked
    found = json.loads(run(base, better, "--json").stdout)
    assert found["benchmark"] == "basics" and len(found["benchmark_sha256"]) == 64
    assert found["pass_at_1"]["p_value"] == 0.03125 and found["pass_at_1"]["differs"] is True
    assert found["flips"][0] == {
        "task_id": TASKS[5].id, "passed_a": 0, "samples_a": 1, "passed_b": 1, "samples_b": 1,
        "changes": [{"sample": 0, "a": "runtime_error", "b": "passed", "where": "generation"}],
        "direction": "gained", "where": {"generation": 1},
    }  # fmt: skip


def test_names_of_a_folder_cannot_move_the_cursor(base: Path, better: Path, tmp_path: Path) -> None:
    def rename(line: dict[str, Any]) -> None:
        if line["task_id"] == TASKS[5].id:
            line["task_id"] = "\x1b[2J|<b>evil\nname"

    a, b = edited(base, tmp_path / "a", rename), edited(better, tmp_path / "b", rename)
    assert "\x1b" not in run(a, b).stdout and "|<b>evil name" in run(a, b).stdout
    assert "<b>" not in run(a, b, "--markdown").stdout


def test_a_run_folder_with_one_evaluation_is_enough(base: Path, better: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "run" / "evaluations" / "basics-test")
    assert len(compare(tmp_path / "run", better).flips) == 6
    shutil.copytree(base, tmp_path / "run" / "evaluations" / "basics-test-base")
    with pytest.raises(WishError, match=r"2 evaluations \(evaluations/basics-test, .*-base\): name one"):
        compare(tmp_path / "run", better)


def test_what_cannot_be_compared_is_refused(base: Path, better: Path, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(better, tmp_path / name))

    with pytest.raises(WishError, match="holds no finished evaluation"):
        compare(base, tmp_path)
    (copy("started") / "results.jsonl").unlink()
    (tmp_path / "started" / "summary.json").unlink()
    with pytest.raises(WishError, match=r"holds no results\.jsonl, so the evaluation did not end"):
        compare(base, tmp_path / "started")
    (copy("broken") / "summary.json").write_text("{")
    with pytest.raises(WishError, match="holds a damaged file"):
        compare(base, tmp_path / "broken")
    results = copy("torn") / "results.jsonl"
    results.write_bytes(results.read_bytes()[:-40])
    with pytest.raises(WishError, match=r"summary\.json is not of the results\.jsonl beside it"):
        compare(base, tmp_path / "torn")
    edited(better, tmp_path / "shapeless", lambda line: line.pop("verdict"))
    with pytest.raises(WishError, match="damaged file .*without a verdict"):
        compare(base, tmp_path / "shapeless")
    summary = json.loads((copy("other") / "summary.json").read_text()) | {"benchmark": "mbpp"}
    (tmp_path / "other" / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(WishError, match="was judged by basics and .* by mbpp"):
        compare(base, tmp_path / "other")
    elsewhere = edited(
        better, tmp_path / "elsewhere", lambda line: line.update(task_id=f"x{line['task_id']}")
    )
    with pytest.raises(WishError, match="share no task"):
        compare(base, elsewhere)
    assert isinstance(run(base, better, "--json", "--markdown").exception, WishError)


def test_through_the_persons_door(base: Path, better: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "launch", "compare", str(base)]
    done = subprocess.run([*command, str(better)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "6 tasks changed" in done.stdout, done.stderr
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "holds no finished evaluation" in done.stderr
