"""Known files are known however they are packed, others are a note, and figures say which they are of."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from engine.errors import WishError
from engine.evaluate import find
from engine.evaluate.benchmarks import BENCHMARKS, basics, humaneval
from engine.evaluate.benchmarks.sources import SOURCES
from engine.evaluate.commands import benchmark as benchmark_command
from engine.evaluate.commands import score as score_command
from engine.evaluate.origin import Origin
from engine.evaluate.report.commands import report as report_command

FOLDERS = {
    "humaneval": "humaneval",
    "humaneval-plus": "humanevalplus",
    "infilling": "infilling",
    "mbpp": "mbpp",
    "multipl-e": "multipl_e",
}


def told(*words: str) -> Result:
    result = CliRunner().invoke(benchmark_command, words)
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize("name", FOLDERS)
def test_the_fields_own_files_are_the_pinned_ones(name: str, field_data: Path) -> None:
    for file in SOURCES[name].files:
        path = field_data / FOLDERS[name] / f"{file.name}.gz"
        origin = Origin.of(name, str(path))
        assert (origin.pinned, origin.size, origin.note) == (file.name, file.size, None)
        with gzip.open(path) as lines:
            assert sum(1 for line in lines if line.strip()) == file.tasks


def test_an_unpacked_file_is_the_same_and_an_altered_one_a_note(field_data: Path, tmp_path: Path) -> None:
    text = gzip.decompress((field_data / "humaneval" / "HumanEval.jsonl.gz").read_bytes())
    (tmp_path / "plain.jsonl").write_bytes(text)
    shown = told("show", "humaneval", "--data", str(tmp_path / "plain.jsonl"), "--limit", "1")
    assert "matches the pinned HumanEval.jsonl of github.com/openai/human-eval, MIT" in shown.stdout
    (tmp_path / "altered.jsonl").write_bytes(text.replace(b"even", b"odd"))
    shown = told("show", "humaneval", "--data", str(tmp_path / "altered.jsonl"), "--limit", "1")
    assert "matches" not in shown.stdout and "differs from the pinned HumanEval.jsonl" in shown.stderr


def test_figures_say_what_they_are_of_and_the_report_reads_them(small: Path, tmp_path: Path) -> None:
    lines = [{"task_id": task.id, "completion": task.reference} for task in humaneval.load(str(small))]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = [
        "--benchmark",
        "humaneval",
        "--data",
        str(small),
        "--samples",
        str(tmp_path / "s.jsonl"),
        "--json",
    ]
    result = CliRunner().invoke(score_command, [*words, "--out", str(tmp_path / "scored")])
    assert result.exit_code == 0 and "note: " in result.stderr and "differs from the pinned" in result.stderr
    said, kept = json.loads(result.stdout), json.loads((tmp_path / "scored" / "summary.json").read_text())
    origin = Origin.of("humaneval", str(small))
    assert said["data"] == kept["data"] == origin.as_json()
    assert kept["data"]["bytes"] == small.stat().st_size and kept["data"]["pinned"] is None
    assert said == kept, "what is printed is what is written"

    made = CliRunner().invoke(
        report_command, [str(tmp_path / "scored"), "--out", str(tmp_path / "report.html")]
    )
    assert made.exit_code == 0, made.output
    page = (tmp_path / "report.html").read_text()
    assert "no summary.json" not in page and "an unnamed benchmark" not in page
    assert str(kept["data"]["sha256"]) in page


def test_a_benchmark_without_a_record_has_nothing_to_differ_from(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(SOURCES, "humaneval")
    assert Origin.of("humaneval", str(small)).note is None
    shown = told("show", "humaneval", "--data", str(small))
    assert "sha256" in shown.stdout and not shown.stderr
    listed = {one["name"]: one for one in json.loads(told("list", "--json").stdout)}
    assert listed["humaneval"]["origin"] == humaneval.HUB_ID and listed["humaneval"]["files"] == []


def test_the_list_names_all_with_licence_tasks_size_and_hash() -> None:
    text = told("list").stdout
    for name, source in SOURCES.items():
        assert f"{name} " in text and f"{source.licence}, {source.origin}" in text
        for file in source.files:
            assert f"{file.tasks:,} tasks, {file.size:,} bytes, sha256 {file.sha256[:12]}" in text
    assert f"({len(basics.load(None))} tasks)" in SOURCES["basics"].origin
    assert [one["name"] for one in json.loads(told("list", "--json").stdout)] == list(BENCHMARKS)


def test_a_file_that_breaks_off_is_a_sentence_even_where_its_first_task_is_enough(tmp_path: Path) -> None:
    """What is hashed is all of it, so what the first rows did not show is found there."""
    row = {
        "task_id": "t/1",
        "prompt": "def f():\n",
        "entry_point": "f",
        "canonical_solution": "    return 1\n",
    }
    row["test"] = "def check(candidate):\n    assert candidate() == 1\n"
    rows = [json.dumps({**row, "task_id": f"t/{number}"}) for number in range(5000)]
    whole = gzip.compress("\n".join(rows).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    assert len(find("humaneval").load(str(tmp_path / "cut.jsonl.gz"), limit=1)) == 1
    with pytest.raises(WishError, match=r"cannot read .*cut\.jsonl\.gz"):
        Origin.of("humaneval", str(tmp_path / "cut.jsonl.gz"))
