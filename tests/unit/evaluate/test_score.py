"""Scoring given samples: the field's format in, verdicts of the real sandbox out."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from engine.errors import PreflightError, WishError
from engine.evaluate import judge as judging
from engine.evaluate.benchmarks import humaneval
from engine.evaluate.commands import benchmark as benchmark_command
from engine.evaluate.commands import score as score_command
from engine.evaluate.lock import alone
from engine.evaluate.samples import read_samples
from engine.sandbox import Pool, Verdict

Rows = list[dict[str, Any]]


def write(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(data: Path, samples: Path | str, *more: str, stdin: str | None = None) -> Result:
    arguments = ["--benchmark", "humaneval", "--data", str(data), "--samples", str(samples), *more]
    return CliRunner().invoke(score_command, arguments, input=stdin)


def scored(data: Path, samples: Path | str, *more: str, stdin: str | None = None) -> dict[str, Any]:
    result = run(data, samples, "--json", *more, stdin=stdin)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def canonical(data: Path) -> Rows:
    return [{"task_id": task.id, "completion": task.reference} for task in humaneval.load(str(data))]


def test_humaneval_references_score_one_and_empty_answers_nothing(field_data: Path, tmp_path: Path) -> None:
    data = field_data / "humaneval" / "HumanEval.jsonl.gz"
    found = scored(data, write(tmp_path / "canonical.jsonl", canonical(data)))
    assert (found["tasks"], found["samples"], found["verdicts"]) == (164, 164, {"passed": 164})
    assert found["pass_at_k"]["1"]["value"] == found["pass_at_k"]["1"]["high"] == 1.0
    assert 0.97 < found["pass_at_k"]["1"]["low"] < 1.0
    assert found["isolation"] in ("full", "user", "process")

    empty = [row | {"completion": ""} for row in canonical(data)]
    found = scored(data, write(tmp_path / "empty.jsonl", empty))
    assert found["pass_at_k"]["1"]["value"] == 0.0
    assert found["verdicts"]["passed"] == 0
    assert sum(found["verdicts"].values()) == 164


def test_the_example_that_ships_with_humaneval(field_data: Path) -> None:
    folder = field_data / "humaneval"
    found = scored(folder / "example_problem.jsonl", folder / "example_samples.jsonl", "--k", "1,2")
    assert (found["tasks"], found["samples"]) == (1, 6)
    assert found["pass_at_k"]["1"]["value"] == 0.5


def test_results_come_in_input_order_with_samples_counted(small: Path, tmp_path: Path) -> None:
    rows = [
        {"task_id": "Small/2", "completion": "    return text.upper()\n"},
        {"task_id": "Small/0", "completion": "    return x +\n"},
        {"task_id": "Small/2", "completion": "    return text\n"},
        {"task_id": "Small/0", "completion": "    while True: pass\n"},
        {"task_id": "Small/0", "completion": "    return missing\n"},
    ]
    found = scored(
        small, write(tmp_path / "s.jsonl", rows), "--out", str(tmp_path / "out"), "--cpu-seconds", "1"
    )
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [(line["task_id"], line["sample"], line["verdict"]) for line in lines] == [
        ("Small/2", 0, "passed"),
        ("Small/0", 0, "compile_error"),
        ("Small/2", 1, "wrong"),
        ("Small/0", 1, "cpu_limit"),
        ("Small/0", 2, "runtime_error"),
    ]
    assert "missing" in lines[4]["detail"] + lines[4]["stderr"]
    assert found["verdicts"]["cpu_limit"] == 1


@pytest.mark.parametrize(
    "forged",
    [
        "    class Same(int):\n        def __eq__(self, other): return True\n    return Same()\n",
        "    import os\n    os._exit(0)\n",
        "    import sys\n    sys.exit(0)\n",
        "    print('passed')\n    raise SystemExit\n",
        "    import inspect\n    [f.frame.f_locals.update(ok=True) for f in inspect.stack()]\n    return None\n",
    ],
)
def test_verdicts_cannot_be_forged(small: Path, tmp_path: Path, forged: str) -> None:
    found = scored(small, write(tmp_path / "s.jsonl", [{"task_id": "Small/0", "completion": forged}]))
    assert found["verdicts"]["passed"] == 0
    assert found["pass_at_k"]["1"]["value"] == 0.0


def test_solutions_are_whole_programs(small: Path, tmp_path: Path) -> None:
    rows = [
        {"task_id": "Small/0", "solution": "def double(x):\n    return x + x\n"},
        {"task_id": "Small/1", "solution": "    return items[0]\n"},
    ]
    found = scored(small, write(tmp_path / "s.jsonl", rows))
    assert found["verdicts"] == {"passed": 1, "compile_error": 1}


def test_gzip_and_standard_input_and_a_byte_order_mark(small: Path, tmp_path: Path) -> None:
    text = "\ufeff" + json.dumps({"task_id": "Small/0", "completion": "    return x * 2\n"}) + "\r\n\n"
    (tmp_path / "s.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "small.gz").write_bytes(gzip.compress(small.read_bytes()))
    assert scored(tmp_path / "small.gz", tmp_path / "s.jsonl.gz")["verdicts"] == {"passed": 1}
    assert scored(small, "-", stdin=text)["verdicts"] == {"passed": 1}


def test_hostile_text_is_judged_not_choked_on(small: Path, tmp_path: Path) -> None:
    rows = [
        {"task_id": "Small/0", "completion": text}
        for text in ("\0", "\ud800", "    return '\u2028'\n", "(" * 5000)
    ]
    found = scored(small, write(tmp_path / "s.jsonl", rows))
    assert found["verdicts"]["passed"] == 0
    assert found["samples"] == 4


def test_too_few_samples_for_k_is_null_with_the_reason(small: Path, tmp_path: Path) -> None:
    rows = canonical(small) + canonical(small)[:2]
    found = scored(small, write(tmp_path / "s.jsonl", rows), "--k", "1,2")
    assert found["pass_at_k"]["1"]["value"] == 1.0
    assert found["pass_at_k"]["2"]["value"] is None
    assert "3 of 5 tasks have fewer than 2" in found["pass_at_k"]["2"]["reason"]


def test_tasks_without_samples_are_said(small: Path, tmp_path: Path) -> None:
    result = run(small, write(tmp_path / "s.jsonl", canonical(small)[:3]), "--json")
    found = json.loads(result.stdout)
    assert (found["tasks"], found["tasks_without_samples"]) == (3, 2)
    assert "2 tasks of the benchmark have no sample" in result.stderr
    assert "Small/3, Small/4" in result.stderr


def test_table(small: Path, tmp_path: Path) -> None:
    result = run(small, write(tmp_path / "s.jsonl", canonical(small) * 2), "--k", "1,2,3")
    assert result.exit_code == 0
    assert "humaneval: 10 samples of 5 tasks" in result.stdout
    assert "pass@2    100.00%" in result.stdout
    assert "pass@3    undefined" in result.stdout


BAD_SAMPLES = {
    "not json": ('{"task_id": ', r"s\.jsonl:2: not JSON"),
    "not an object": ("[1]", r"s\.jsonl:2: a list, not a JSON object"),
    "no task": ('{"completion": ""}', r"s\.jsonl:2: task_id is null"),
    "unknown task": (
        '{"task_id": "Smal/0", "completion": ""}',
        r"s\.jsonl:2: .*'Smal/0': the nearest .*'Small/0'",
    ),
    "nothing to run": ('{"task_id": "Small/0"}', r"s\.jsonl:2: neither completion nor solution"),
    "both": (
        '{"task_id": "Small/0", "completion": "", "solution": ""}',
        r"s\.jsonl:2: completion and solution",
    ),
    "not a text": ('{"task_id": "Small/0", "completion": 5}', r"s\.jsonl:2: completion is 5, not a text"),
}


@pytest.mark.parametrize(("line", "message"), BAD_SAMPLES.values(), ids=BAD_SAMPLES.keys())
def test_bad_lines_are_named_before_anything_runs(
    small: Path, tmp_path: Path, line: str, message: str
) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps({"task_id": "Small/0", "completion": ""}) + "\n" + line + "\n")
    tasks = {task.id: task for task in humaneval.load(str(small))}
    with pytest.raises(WishError, match=message):
        read_samples(str(path), tasks)


def test_missing_and_empty_files(small: Path, tmp_path: Path) -> None:
    with pytest.raises(WishError, match="there is no file"):
        read_samples(str(tmp_path / "none.jsonl"), {})
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(WishError, match="holds no sample"):
        read_samples(str(tmp_path / "empty.jsonl"), {})
    (tmp_path / "torn.gz").write_bytes(gzip.compress(b"x" * 1000)[:20])
    with pytest.raises(WishError, match="cannot read"):
        read_samples(str(tmp_path / "torn.gz"), {})


BAD_TASKS = {
    "not json": ("{", r"bad\.jsonl:1: not JSON"),
    "field missing": ('{"task_id": "a"}', r"bad\.jsonl:1: .*prompt, entry_point, canonical_solution, test"),
    "infilling": (
        '{"task_id": "a", "prompt": "", "entry_point": "f", "canonical_solution": "", "test": "", "suffix": ""}',
        "asks for infilling",
    ),
    "no check": (
        '{"task_id": "a", "prompt": "", "entry_point": "f", "canonical_solution": "", "test": "x"}',
        "defines no check",
    ),
    "nothing": ("", "holds no task"),
}


@pytest.mark.parametrize(("line", "message"), BAD_TASKS.values(), ids=BAD_TASKS.keys())
def test_bad_benchmark_files(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "bad.jsonl").write_text(line + "\n")
    with pytest.raises(WishError, match=message):
        humaneval.load(str(tmp_path / "bad.jsonl"))


def test_benchmark_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WishError, match="there is no file"):
        humaneval.load(str(tmp_path / "HumanEval.jsonl.gz"))


def test_sandbox_failures_are_retried_and_never_scored(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = write(tmp_path / "s.jsonl", canonical(small))
    failures = {"Small/0": 1, "Small/1": 9}

    class Flaky(Pool):
        def submit(self, program: Any, *limits: Any) -> Future[Verdict]:
            name = next((name for name in failures if name in program.source), None)
            if not name or not failures[name]:
                return super().submit(program, *limits)
            failures[name] -= 1
            future: Future[Verdict] = Future()
            future.set_result(Verdict("infra", "the worker died", isolation=self.level))
            return future

    monkeypatch.setattr(judging, "Pool", Flaky)
    result = run(small, samples, "--json", "--out", str(tmp_path / "out"))
    found = json.loads(result.stdout)
    assert isinstance(result.exception, PreflightError)
    assert failures == {"Small/0": 0, "Small/1": 9 - judging.ATTEMPTS}
    assert found["verdicts"] == {"passed": 4, "infra": 1}
    assert (found["samples"], found["unscored"]) == (4, 1)
    assert found["pass_at_k"]["1"]["value"] is None
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["verdict"] for line in lines] == [
        "passed",
        "infra",
        "passed",
        "passed",
        "passed",
    ]


def test_validate_proves_a_benchmark(small: Path, tmp_path: Path) -> None:
    def validate(path: Path) -> Result:
        return CliRunner().invoke(benchmark_command, ["validate", "humaneval", "--data", str(path)])

    result = validate(small)
    assert result.exit_code == 0
    assert "reference  5 of 5 passed, wanted 5" in result.output
    assert "empty      0 of 5 passed, wanted 0" in result.output
    rows = [json.loads(line) for line in small.read_text().splitlines()]
    rows[1]["canonical_solution"] = "    return items[1]\n"
    rows[2]["test"] = "def check(candidate):\n    pass\n"
    result = validate(write(tmp_path / "broken.jsonl", rows))
    assert result.exit_code == 1
    assert "Small/1: the reference answer is wrong" in result.output
    assert "Small/2: the empty answer is passed" in result.output


def test_export_of_basics_is_repeatable(tmp_path: Path) -> None:
    def export(name: str, seed: int, *more: str) -> bytes:
        out = tmp_path / name
        arguments = ["export", "basics", "--count", "20", "--seed", str(seed), "--out", str(out), *more]
        result = CliRunner().invoke(benchmark_command, arguments)
        assert result.exit_code == 0, result.output
        return out.read_bytes()

    assert export("a", 1) == export("b", 1) != export("c", 2)
    row = json.loads(export("d", 1).splitlines()[0])
    assert {"id", "prompt", "completion"} <= row.keys()
    assert len(export("e", 0, "--split", "validation").splitlines()) == 20


def test_a_folder_that_cannot_be_written_or_is_being_written(small: Path, tmp_path: Path) -> None:
    samples = write(tmp_path / "s.jsonl", canonical(small)[:1])
    (tmp_path / "file").write_text("kept")
    refused = run(small, samples, "--out", str(tmp_path / "file" / "out")).exception
    assert isinstance(refused, WishError) and "file/out cannot be written: Not a directory" in str(refused)
    assert (tmp_path / "file").read_text() == "kept"
    with alone(tmp_path / "out"):
        refused = run(small, samples, "--out", str(tmp_path / "out")).exception
    assert isinstance(refused, WishError) and "another process is writing" in str(refused)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def test_what_is_printed_is_what_is_written(small: Path, tmp_path: Path) -> None:
    samples = write(tmp_path / "s.jsonl", canonical(small)[:3])
    found = scored(small, samples, "--static", "--out", str(tmp_path / "out"), "--preload", "json")
    assert found == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert found["seconds"].keys() == {"generation", "execution"} and found["tasks_without_samples"] == 2
    assert (
        found["limits"] == found["settings"]["court"]["limits"]
        and found["static"]["passing"]["programs"] == 3
    )


def test_through_the_ranks_door(small: Path, tmp_path: Path) -> None:
    samples = write(tmp_path / "s.jsonl", canonical(small))
    command = [sys.executable, "-m", "engine", "score", "--benchmark", "humaneval", "--data", str(small)]
    done = subprocess.run(
        [*command, "--samples", str(samples), "--json"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdicts"] == {"passed": 5}
    bad = write(tmp_path / "bad.jsonl", [{"task_id": "Small/9", "completion": ""}])
    done = subprocess.run([*command, "--samples", str(bad)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("temper: ") and "Small/9" in done.stderr
    assert "Traceback" not in done.stderr
