"""Efficiency: programs of known cost beside their reference, in the real sandbox."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from engine.errors import WishError
from engine.evaluate import Settings, evaluate
from engine.evaluate.benchmarks import custom
from engine.evaluate.commands import rescore as rescore_command
from engine.evaluate.commands import score as score_command
from engine.evaluate.efficiency import EFFICIENCY, Spread, demand_python
from engine.evaluate.report.commands import report as report_command
from engine.evaluate.task import Task
from engine.generate import Generation, Request

LOOP = "    s = 0\n    for i in range(n):\n        s += i * i % 7\n    return s\n"
TEN_TIMES = "    for _ in range(10):\n        s = 0\n        for i in range(n):\n"
TEN_TIMES += "            s += i * i % 7\n    return s\n"
HOLD = "    held = [0] * 2_000_000\n    return len(held) * n\n"
TASKS = [
    ("Cost/time", LOOP, 200_000, sum(i * i % 7 for i in range(200_000))),
    ("Cost/none", "    return n + 1\n", 1, 2),
    ("Cost/memory", HOLD, 3, 6_000_000),
    ("Cost/unknown", "", 1, 1),
]
ROWS = [
    ("Cost/time", LOOP),
    ("Cost/time", TEN_TIMES),
    ("Cost/time", LOOP),
    ("Cost/time", "    return 0\n"),
    ("Cost/none", "    return 1 + n\n"),
    ("Cost/memory", HOLD.replace("2_000_000", "8_000_000").replace("* n", "* n // 4")),
    ("Cost/unknown", "    return n\n"),
]


def run(folder: Path, *more: str) -> Result:
    tasks = [
        {
            "task_id": name,
            "prompt": "def f(n):\n",
            "entry_point": "f",
            "reference": reference,
            "tests": [f"assert f({given}) == {wanted}"],
        }
        for name, reference, given, wanted in TASKS
    ]
    rows = [{"task_id": name, "completion": text} for name, text in ROWS]
    for name, lines in (("tasks", tasks), ("samples", rows)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    wish = ["--benchmark", "custom", "--data", str(folder / "tasks.jsonl")]
    return CliRunner().invoke(score_command, [*wish, "--samples", str(folder / "samples.jsonl"), *more])


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder, and what --json printed."""
    folder = tmp_path_factory.mktemp("efficiency")
    result = run(folder, "--efficiency", "3", "--json", "--out", str(folder / "out"))
    assert result.exit_code == 0, result.output
    return folder / "out", json.loads(result.stdout)


def test_ten_times_the_work_is_seen_and_the_same_work_is_not(measured: tuple[Path, dict[str, Any]]) -> None:
    lines = [json.loads(line) for line in (measured[0] / EFFICIENCY).read_text().splitlines()]
    found = {(line["task_id"], tuple(line["samples"])): line for line in lines}
    same, more = found["Cost/time", (0, 2)], found["Cost/time", (1,)]
    assert 3 < more["cpu_ratio"] < 30
    assert same["cpu_ratio"] < more["cpu_ratio"] / 2
    assert found["Cost/memory", (0,)]["memory_ratio"] > 2
    assert len(lines) == 4, "the wrong program and the one without a reference are left out"


def test_a_reference_below_the_clock_has_no_ratio(measured: tuple[Path, dict[str, Any]]) -> None:
    lines = [json.loads(line) for line in (measured[0] / EFFICIENCY).read_text().splitlines()]
    (quick,) = [line for line in lines if line["task_id"] == "Cost/none"]
    assert quick["cpu_ratio"] is None and quick["memory_ratio"] is None
    found = measured[1]["efficiency"]
    assert found["without_reference"] == 1
    assert found["unsteady"] == 0
    assert found["run_time"]["below_the_clock"] >= 1
    assert found["memory"]["programs"] == 1
    assert found["run_time"]["worst"][0][0] == "Cost/time"


def test_the_report_draws_it(measured: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    result = CliRunner().invoke(report_command, [str(measured[0]), "--out", str(tmp_path / "r.html")])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "r.html").read_text()
    assert "Efficiency of passing programs" in page
    assert 'aria-label="Run time against the reference"' in page
    assert re.search(r"<text[^>]*>[\d.]+x</text>", page)


def test_a_table_and_no_stale_measurement(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / EFFICIENCY).write_text("{}\n")
    result = run(tmp_path, "--static", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "out" / EFFICIENCY).exists()
    assert "efficiency" not in result.stdout and "static facts" in result.stdout
    page = tmp_path / "r.html"
    shown = CliRunner().invoke(report_command, [str(tmp_path / "out"), "--out", str(page)])
    assert shown.exit_code == 0, shown.output
    assert "Texts of the programs" in page.read_text() and ">failing</td>" in page.read_text()


def evaluated(folder: Path, **wish: Any) -> tuple[dict[str, Any], int]:
    """An evaluation that answers with ROWS: its summary.json, and how many measurements it made."""
    tasks = custom.load(str(folder / "tasks.jsonl"))
    counts = {task.id: sum(name == task.id for name, _ in ROWS) for task in tasks}
    measured = 0

    def generator(requests: Sequence[Request]) -> Iterator[Generation]:
        for one in requests:
            texts = [text for name, text in ROWS if name == one.task_id]
            text = texts[one.sample % counts[one.task_id]]
            yield Generation(one.task_id, one.sample, one.seed, text, text, len(text), "stop")

    def tell(phase: str, done: int, whole: int) -> None:
        nonlocal measured
        measured += phase == "measure"

    evaluate(
        tasks, "custom", Settings("rows", samples=4, data=str(folder / "tasks.jsonl"), **wish),
        generator=generator, folder=folder / "judged", rank=0, world_size=1, barrier=lambda: None,
        ask=lambda task: (task.prompt, task.stop), chat=False, progress=tell,
    )  # fmt: skip
    return json.loads((folder / "judged" / "summary.json").read_text()), measured


def test_an_evaluation_measures_once_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    run(tmp_path)
    place = tmp_path / "judged"
    summary, measured = evaluated(tmp_path, efficiency=3, static=True)
    assert measured == 5 and summary["settings"]["efficiency"] == 3
    found = summary["efficiency"]
    assert found["without_reference"] == 1 and found["run_time"]["worst"][0][0] == "Cost/time"
    assert summary["static"]["passing"]["programs"] == 5
    before, journal = (place / EFFICIENCY).read_text(), place / "measurements.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]) + lines[-1][:9])  # killed while the last one was written
    (place / EFFICIENCY).unlink()
    again, measured = evaluated(tmp_path, efficiency=3, static=True)
    assert measured == 1
    assert (place / EFFICIENCY).read_text().splitlines()[:4] == before.splitlines()[:4]
    assert again["efficiency"].keys() == found.keys()
    rescored = CliRunner().invoke(rescore_command, [str(place)])
    assert rescored.exit_code == 0, rescored.output
    assert "efficiency" in json.loads((place / "summary.json").read_text())
    plain, measured = evaluated(tmp_path)
    assert measured == 0 and "efficiency" not in plain and not (place / EFFICIENCY).exists()


def test_a_run_that_wants_it_of_another_language_is_refused() -> None:
    with pytest.raises(WishError, match=r"task T/1 is in rust.*leave out efficiency"):
        demand_python([Task(id="T/1", prompt="", entry_point="f", reference="", language="rust")])


def test_too_few_repeats_are_refused(tmp_path: Path) -> None:
    result = run(tmp_path, "--efficiency", "2")
    assert result.exit_code == 2


def test_figures_of_known_ratios() -> None:
    spread = Spread.of([("a", 1.0), ("a", 4.0), ("b", 1.0), ("c", 2.0), ("d", 0.5), ("e", None)])
    assert (spread.programs, spread.below_the_clock) == (5, 1)
    assert spread.geometric_mean == pytest.approx(4 ** (1 / 5))
    assert spread.quartiles == (1.0, 1.0, 2.0)
    assert spread.within == 0.6
    assert spread.worst == (("a", 4.0), ("c", 2.0), ("b", 1.0), ("d", 0.5))
    assert Spread.of([("a", 3.0)]).quartiles == (3.0, 3.0, 3.0)
    assert Spread.of([("a", None)]) == Spread(0, 1)
