"""An evaluation ends with the same files whoever draws the samples and however often it is killed."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest

from engine.config import Evaluate
from engine.errors import TemperError, WishError
from engine.evaluate import Court, Summary, evaluate, texts
from engine.evaluate import judge as judging
from engine.evaluate.benchmarks import BENCHMARKS, find, humaneval
from engine.evaluate.journal import Journal, read
from engine.evaluate.run import plan
from engine.generate import Generation, Request, extract
from engine.sandbox import Pool, Verdict

ORACLE = Path(__file__).with_name("oracle.py")


def load_oracle() -> ModuleType:
    spec = importlib.util.spec_from_file_location("oracle", ORACLE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


oracle = load_oracle()


def files(folder: Path) -> tuple[bytes, bytes, dict[str, Any]]:
    """results.jsonl, tasks.jsonl and summary.json without its clock."""
    summary = json.loads((folder / "summary.json").read_text())
    summary.pop("seconds")
    return (folder / "results.jsonl").read_bytes(), (folder / "tasks.jsonl").read_bytes(), summary


def in_world(small: Path, folder: Path, size: int, asked: list[Request] | None = None) -> Summary:
    """All ranks of a world, as threads that meet at a real barrier."""
    meeting = threading.Barrier(size)
    found: list[Summary | None] = [None] * size

    def one(rank: int) -> None:
        found[rank] = oracle.draw(small, folder, rank, size, barrier=lambda: meeting.wait(60), asked=asked)

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(summary is None for summary in found[1:])
    assert found[0] is not None
    return found[0]


@pytest.fixture(scope="module")
def whole(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The oracle's evaluation in one go."""
    folder = tmp_path_factory.mktemp("whole")
    oracle.draw(small, folder)
    return folder


def test_figures_are_those_of_the_oracle(small: Path, whole: Path) -> None:
    tasks = humaneval.load(str(small))
    right = [
        [item.request.seed % 7 > 3 for item in plan([task], oracle.settings(), oracle.as_is)]
        for task in tasks
    ]
    summary = json.loads((whole / "summary.json").read_text())
    assert (summary["tasks"], summary["samples"]) == (5, 30)
    assert summary["passed"] == sum(map(sum, right))
    assert summary["pass_at_k"]["1"]["value"] == pytest.approx(sum(map(sum, right)) / 30)
    assert (
        summary["pass_at_k"]["1"]["low"]
        < summary["pass_at_k"]["1"]["value"]
        < summary["pass_at_k"]["1"]["high"]
    )
    lines = [json.loads(line) for line in (whole / "results.jsonl").read_text().splitlines()]
    assert [(line["task_id"], line["sample"]) for line in lines] == [
        (f"Small/{task}", sample) for task in range(5) for sample in range(6)
    ]
    assert [line["verdict"] == "passed" for line in lines] == [ok for row in right for ok in row]
    assert summary["verdicts"] == {
        name: count
        for name in ("passed", "wrong", "compile_error", "runtime_error")
        if (count := sum(line["verdict"] == name for line in lines))
    }
    assert summary["truncated"] == sum(line["seed"] % 7 == 3 for line in lines) > 0
    assert summary["extract_version"] == 3
    assert len(summary["benchmark_sha256"]) == 64


@pytest.mark.parametrize("size", [2, 3])
def test_any_world_size_gives_the_same_files(small: Path, whole: Path, tmp_path: Path, size: int) -> None:
    asked: list[Request] = []
    in_world(small, tmp_path / "world", size, asked)
    assert files(tmp_path / "world") == files(whole)
    assert len(asked) == len({(request.task_id, request.sample) for request in asked}) == 30
    assert len(list((tmp_path / "world").glob("generations-rank*.jsonl"))) == size


def test_what_is_done_is_not_done_again_except_by_other_weights(
    small: Path, whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    asked: list[Request] = []
    oracle.draw(small, tmp_path, asked=asked)
    assert asked == []
    assert (tmp_path / "summary.json").read_text() == (whole / "summary.json").read_text()
    oracle.draw(small, tmp_path, asked=asked, model="another")
    assert len(asked) == 30


def start(
    small: Path, folder: Path, *, pause: float, rank: int = 0, size: int = 1
) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ORACLE), str(small), str(folder), str(rank), str(size), str(pause)]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_at(process: subprocess.Popen[bytes], journal: Path, lines: int) -> None:
    """Kill a process as soon as its journal has that many lines."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if journal.is_file() and journal.read_bytes().count(b"\n") >= lines:
            break
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.faults
def test_killed_while_drawing_and_while_judging(small: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    answers, verdicts = folder / "generations-rank0.jsonl", folder / "verdicts.jsonl"
    for lines in (4, 11):
        kill_at(start(small, folder, pause=0.02), answers, lines)
        assert not (folder / "summary.json").exists()
    torn = answers.read_bytes()
    answers.write_bytes(torn[:-7])
    kill_at(start(small, folder, pause=0.0), verdicts, 5)
    assert answers.read_bytes().startswith(torn[: torn[:-7].rfind(b"\n") + 1])
    judged = verdicts.read_bytes().count(b"\n")
    process = start(small, folder, pause=0.0)
    assert process.wait(timeout=60) == 0
    assert files(folder) == files(whole)
    assert len([*read(answers)]) == len([*read(verdicts)]) == 30
    assert 5 <= judged <= 30


@pytest.mark.faults
def test_killed_with_two_ranks_and_finished_by_three(small: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    kill_at(start(small, folder, pause=0.02, rank=1, size=2), folder / "generations-rank1.jsonl", 5)
    done = len([*read(folder / "generations-rank1.jsonl")])
    asked: list[Request] = []
    in_world(small, folder, 3, asked)
    assert len(asked) == 30 - done
    assert files(folder) == files(whole)


def test_two_writers_are_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.jsonl"), pytest.raises(WishError, match="another process is writing"):
        Journal(tmp_path / "j.jsonl")


def test_a_torn_line_is_cut_at_any_byte(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path) as book:
        for number in range(3):
            book.append({"number": number, "text": "\u2028\ud800é"})
    full = path.read_bytes()
    for length in range(len(full)):
        path.write_bytes(full[:length])
        with Journal(path) as book:
            book.append({"number": 9})
        numbers = [record["number"] for record in read(path)]
        assert numbers == [*range(full[:length].count(b"\n")), 9]


def test_a_generator_that_leaves_something_out_is_named(small: Path, tmp_path: Path) -> None:
    with pytest.raises(TemperError, match="left out 30 of 30"):
        evaluate(
            humaneval.load(str(small)), "humaneval", oracle.settings(), generator=lambda requests: iter(()),
            folder=tmp_path, rank=0, world_size=1, barrier=lambda: None, ask=oracle.as_is, chat=False,
        )  # fmt: skip


def test_ranks_without_a_shared_folder_are_named(small: Path, tmp_path: Path) -> None:
    with pytest.raises(TemperError, match=r"15 of 30 answers are in no journal .* Small/0 sample 1"):
        oracle.draw(small, tmp_path / "mine", 0, 2)


def test_chat_asks_through_the_template_and_reads_fenced_code(small: Path, tmp_path: Path) -> None:
    tasks = humaneval.load(str(small))
    references = {task.id: task.prompt + task.reference for task in tasks}
    seen: list[Request] = []

    def generator(requests: list[Request]) -> Any:
        for request in requests:
            seen.append(request)
            text = f"Sure:\n\n```python\n{references[request.task_id]}```\n\nDone."
            yield Generation(request.task_id, request.sample, request.seed, text, text, 9, "stop")

    summary = evaluate(
        tasks, "humaneval", replace(oracle.settings(), samples=1, k=(1,)), generator=generator,
        folder=tmp_path, rank=0, world_size=1, barrier=lambda: None,
        ask=lambda task: (f"<user>{task.prompt}<assistant>", ()), chat=True,
    )  # fmt: skip
    assert summary is not None and summary.found.figures.pass_at_k[1].value == 1.0
    assert summary.settings["chat"] is True
    assert seen[0].prompt == f"<user>{tasks[0].prompt}<assistant>"
    assert seen[0].sampling.stop == ()


def test_basics_takes_whole_functions_from_chat_models() -> None:
    tasks = [task for task in find("basics").load(None, limit=12) if task.prompt.startswith("def ")]
    answers = [extract(f"```python\n{t.prompt}{t.reference}```\n", t, chat=True) for t in tasks]
    without = [
        extract(f"```python\n{t.prompt.splitlines()[0]}\n{t.reference}```\n", t, chat=True) for t in tasks
    ]
    assert any(answer.lstrip().startswith("def ") for answer in without)
    for given in (answers, without):
        basics = find("basics")
        trials = [(task, basics.program(task, answer)) for task, answer in zip(tasks, given, strict=True)]
        verdicts = judging.judge(basics, len(trials), trials.__getitem__, Court())
        assert [verdict.name for _, verdict in verdicts] == ["passed"] * len(tasks)


def test_infra_is_tried_again_by_the_next_run(
    small: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Pool):
        def submit(self, program: Any, *limits: Any) -> Future[Verdict]:
            if "def total" not in program.source:
                return super().submit(program, *limits)
            future: Future[Verdict] = Future()
            future.set_result(Verdict("infra", "the worker died", isolation=self.level))
            return future

    with monkeypatch.context() as patch:
        patch.setattr(judging, "Pool", Broken)
        summary = oracle.draw(small, tmp_path / "broken")
    assert summary.found.unscored == summary.found.verdicts["infra"] == 6
    assert summary.found.figures.samples == 24
    with pytest.raises(TemperError, match="failed on 6 of 30 samples"):
        summary.found.require_verdicts()
    oracle.draw(small, tmp_path / "broken")
    assert files(tmp_path / "broken") == files(whole)


def test_texts_for_decontamination_cover_both_held_out_splits() -> None:
    held_out = texts("basics")
    tasks = [task for split in ("validation", "test") for task in find("basics").load(None, split=split)]
    assert set(held_out) == {task.prompt + task.reference for task in tasks}
    named = get_args(get_args(Evaluate.model_fields["benchmark"].annotation)[0])
    assert set(named) == set(BENCHMARKS), "a run file can name each, and no other"
