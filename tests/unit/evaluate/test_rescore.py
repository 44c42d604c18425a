"""Answers judged anew: no model, what was judged alike is not run again, and the figures are those of an evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from engine.cli import verbs
from engine.errors import WishError
from engine.evaluate import Court, Settings, evaluate
from engine.evaluate import run as running
from engine.evaluate.benchmarks import find, humaneval
from engine.evaluate.commands import _other_terms
from engine.evaluate.journal import read
from engine.evaluate.lock import alone
from engine.evaluate.origin import Origin
from engine.evaluate.rescore import Wanted, rescore
from engine.evaluate.score import score
from engine.evaluate.summary import held
from engine.generate import AUTO, Generation, Request, Thinking
from engine.sandbox import Limits

from .library_rows import ABSENT, unit_tested

RIGHT = "```python\ndef {name}(x):\n    return {value}\n```\n"
SAID = {
    "Small/0": "<think>\nhm\n</think>\n" + RIGHT.format(name="double", value="x * 2"),
    "Small/1": "<plan>\n" + RIGHT.format(name="first", value="x[0]"),
    "Small/2": "<think>\n" + RIGHT.format(name="shout", value="x.upper()"),
    "Small/3": "hm\n</think>\n" + RIGHT.format(name="total", value="sum(x)"),
    "Small/4": RIGHT.format(name="last", value="x[0]"),
}


def asked(small: Path, folder: Path, *, model: str = "m", thinking: Thinking | None = None) -> dict[str, Any]:
    """A chat model's evaluation; the template opened the thinking of the fourth task."""

    def say(requests: Sequence[Request]) -> Iterator[Generation]:
        for request in requests:
            text = SAID[request.task_id]
            cut = "length" if request.task_id == "Small/2" else "stop"
            yield Generation(request.task_id, request.sample, request.seed, text, text, 9, cut)

    settings = Settings(model=model, court=Court(Limits(cpu_seconds=2, wall_seconds=10)), data=str(small))
    summary = evaluate(
        humaneval.load(str(small)), "humaneval", replace(settings, thinking=thinking or settings.thinking),
        generator=say, folder=folder, rank=0, world_size=1, barrier=lambda: None, chat=True,
        origin=Origin.of("humaneval", str(small)),
        ask=lambda task: (f"<user>{task.prompt}<bot>" + "<think>\n" * (task.id == "Small/3"), ()),
    )  # fmt: skip
    assert summary is not None
    return summary.as_json()


def verdicts(folder: Path) -> dict[str, str]:
    return {line["task_id"]: line["verdict"] for line in read(folder / "results.jsonl")}


def test_thinking_without_an_end_is_an_empty_program_and_counted(small: Path, tmp_path: Path) -> None:
    summary = asked(small, tmp_path)
    assert verdicts(tmp_path)["Small/2"] != "passed" and verdicts(tmp_path)["Small/3"] == "passed"
    assert (summary["passed"], summary["truncated"], summary["only_thinking"]) == (3, 1, 1)
    assert summary["settings"]["thinking"] == asdict(AUTO)
    tasks = list(read(tmp_path / "tasks.jsonl"))
    assert tasks[3]["asked"] == f"<user>{tasks[3]['prompt']}<bot><think>\n"


def test_the_same_terms_run_nothing_and_change_nothing(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(benchmark: Any, count: int, *rest: Any) -> Iterator[Any]:
        assert count == 0, f"{count} programs were to be run again"
        return iter(())

    before = asked(small, tmp_path)
    files = [(tmp_path / name).read_bytes() for name in ("results.jsonl", "summary.json", "tasks.jsonl")]
    monkeypatch.setattr(running, "judge", judge)
    found = rescore(tmp_path, Wanted())
    assert found.changed == {} and found.before.items() >= json.loads(json.dumps(before)).items()
    assert files == [
        (tmp_path / name).read_bytes() for name in ("results.jsonl", "summary.json", "tasks.jsonl")
    ]


@pytest.mark.parametrize("rule", ["keep", ("<plan>", "</plan>")])
def test_another_rule_gives_what_an_evaluation_by_it_gives(small: Path, tmp_path: Path, rule: Any) -> None:
    asked(small, tmp_path / "auto")
    wanted = asked(small, tmp_path / "other", thinking=Thinking.of(rule))
    found = rescore(tmp_path / "auto", Wanted(thinking=Thinking.of(rule)), out=tmp_path / "out")
    now = found.now.as_json()
    assert {**now, "seconds": {}} == {**wanted, "seconds": {}}
    assert verdicts(tmp_path / "out") == verdicts(tmp_path / "other") != verdicts(tmp_path / "auto")
    assert sum(found.changed.values()) >= 1
    drawn = list(read(tmp_path / "auto" / "generations-rank0.jsonl"))
    assert now["seconds"]["generation"] == pytest.approx(sum(line["elapsed"] for line in drawn), abs=1e-3)
    assert found.before["passed"] == 3, "the old results stay where they were"


def test_of_several_answers_the_one_in_the_results_is_judged(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked(small, tmp_path, model="a")
    with monkeypatch.context() as patch:
        patch.setitem(SAID, "Small/4", RIGHT.format(name="last", value="x[-1]"))
        asked(small, tmp_path, model="b")
    assert rescore(tmp_path, Wanted()).now.found.figures.passed == 4
    lines = list(read(tmp_path / "results.jsonl"))
    for line in lines:
        del line["key"]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(WishError, match="holds 2 answers of Small/0 sample 0"):
        rescore(tmp_path, Wanted())


def test_terms_not_given_are_those_of_then() -> None:
    then = Court(Limits(cpu_seconds=7, memory_mb=99), level="process", workers=5, preload=("json",))
    given = {"workers": None, "level": None, "preload": (), "cpu_seconds": 2.0, "wall_seconds": None}
    now = _other_terms(given, then)
    assert now == replace(then, limits=replace(then.limits, cpu_seconds=2.0))


def test_the_verb(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "evaluations" / "humaneval-test"
    asked(small, folder)
    done = CliRunner().invoke(verbs, ["rescore", str(folder), "--thinking", "keep", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["before"]["passed"] == 3 and told["now"]["passed"] == 4 and len(told["changed"]) == 1
    done = CliRunner().invoke(verbs, ["rescore", str(folder), "--thinking", "auto"])
    assert "pass@1    80.00% -> 60.00%" in done.stdout and "1 passed -> " in done.stdout
    for words, told_why in (
        ([str(tmp_path / "run")], f"name one of {folder}"),
        ([str(tmp_path)], f"name one of {folder}"),
        ([str(folder), "--thinking", "<a>"], "is no rule"),
        ([str(folder), "--data", str(tmp_path / "none.jsonl")], "there is no file"),
    ):
        error = CliRunner().invoke(verbs, ["rescore", *words]).exception
        assert isinstance(error, WishError) and told_why in str(error)


def test_verdicts_that_libraries_are_missing_for_are_not_lost_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / f"{ABSENT}.py").write_text("")
    data = tmp_path / "t.jsonl"
    rows = [unit_tested(0, libs="['json']"), unit_tested(1, libs=f"['{ABSENT}']")]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def say(requests: Sequence[Request]) -> Iterator[Generation]:
        return (Generation(r.task_id, r.sample, r.seed, "    return 1\n", "", 3, "stop") for r in requests)

    with monkeypatch.context() as installed:
        installed.syspath_prepend(str(tmp_path / "here"))
        evaluate(
            find("bigcodebench").load(str(data)), "bigcodebench", Settings(model="m", data=str(data)),
            generator=say, folder=tmp_path / "run", rank=0, world_size=1, barrier=lambda: None, chat=False,
            ask=lambda task: (task.prompt, ()),
        )  # fmt: skip
    before = {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    with pytest.raises(
        WishError, match=rf"{ABSENT} \(1\).*judged in place, their verdicts would be lost.*--out"
    ):
        rescore(tmp_path / "run", Wanted())
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    found = rescore(tmp_path / "run", Wanted(), out=tmp_path / "out")
    assert (found.now.found.figures.tasks, len(found.now.found.not_judged)) == (1, 1)


def test_scored_samples_hold_no_answers_to_judge_again(small: Path, tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text('{"task_id": "Small/0", "completion": "    return x * 2\\n"}\n')
    score("humaneval", str(small), str(tmp_path / "s.jsonl"), court=Court(), out=tmp_path / "out")
    with pytest.raises(
        WishError, match="holds verdicts and no answers: let `temper score` judge its samples"
    ):
        rescore(tmp_path / "out", Wanted())


def test_one_at_a_time_writes_a_folder(small: Path, tmp_path: Path) -> None:
    asked(small, tmp_path)
    with alone(tmp_path):
        for work in (lambda: rescore(tmp_path, Wanted()), lambda: asked(small, tmp_path)):
            with pytest.raises(WishError, match=f"another process is writing {tmp_path}: let it finish"):
                work()
    rescore(tmp_path, Wanted())


def test_limits_that_tasks_raise_are_told_and_kept_from_the_ones_asked_for(
    small: Path, tmp_path: Path
) -> None:
    asked(small, tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["limits"]["cpu_seconds"] == summary["settings"]["court"]["limits"]["cpu_seconds"] == 2
    tasks = humaneval.load(str(small))
    raised = [replace(task, cpu_seconds=float(20 * n), memory_mb=4096) for n, task in enumerate(tasks)]
    limits = held(Limits(cpu_seconds=2, wall_seconds=10), raised)
    assert (limits["cpu_seconds"], limits["wall_seconds"], limits["memory_mb"]) == (
        [2, 80.0],
        [10, 240.0],
        4096,
    )
    summary["limits"] |= {"cpu_seconds": 20.0}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert "  cpu_seconds 20.0 -> 2" in rescore(tmp_path, Wanted(), out=tmp_path / "out").lines()


def test_other_tasks_are_refused(small: Path, tmp_path: Path) -> None:
    asked(small, tmp_path / "run")
    other = tmp_path / "other.jsonl"
    other.write_text(small.read_text().replace("Task Small/0.", "Another."))
    with pytest.raises(WishError, match="1 of 5 tasks .* such as Small/0"):
        rescore(tmp_path / "run", Wanted(data=str(other)))
