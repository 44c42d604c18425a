"""Infilling: the hole is filled and nothing else; a model is asked in its own sentinels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from engine.config import Run
from engine.errors import WishError
from engine.evaluate.benchmarks import infilling
from engine.evaluate.question import questions
from engine.generate import extract
from engine.sandbox import Limits, Pool

LIMITS = Limits(cpu_seconds=5, wall_seconds=60)
BASE = Path(__file__).parent.parent.parent.parent / "configs" / "tiny" / "base"
ROW: dict[str, Any] = {
    "task_id": "SingleLineInfilling/Small/0/L1",
    "prompt": "def double(x):\n",
    "suffix": "    return y\n",
    "canonical_solution": "    y = x * 2\n",
    "entry_point": "double",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n",
}


def write(folder: Path, *rows: Any) -> str:
    file = folder / "infilling.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def asked(folder: Path, **evaluate: str) -> Any:
    """What `questions` makes of a run on the embedded model."""
    wish = {"output": str(folder), "model": {"path": str(BASE)}, "evaluate": evaluate}
    return questions(Run.model_validate(wish), AutoTokenizer.from_pretrained(BASE))


@pytest.mark.parametrize(
    ("name", "count"), [("SingleLineInfilling", 1033), ("RandomSpanInfillingLight", 164)]
)
def test_every_reference_passes_and_no_broken_one(field_data: Path, name: str, count: int) -> None:
    tasks = infilling.load(str(field_data / "infilling" / f"HumanEval-{name}.jsonl.gz"))
    assert len(tasks) == count and {task.group for task in tasks} == {name}
    with Pool(2) as pool:
        right = pool.run_many((infilling.program(task, task.reference) for task in tasks), LIMITS)
        assert {task.id: v for task, v in zip(tasks, right, strict=True) if not v.passed} == {}
        broken = pool.run_many((infilling.program(task, "\n)\n") for task in tasks), LIMITS)
        assert {v.name for v in broken} <= {"compile_error", "runtime_error", "wrong"}


def test_a_middle_is_taken_as_it_stands(tmp_path: Path) -> None:
    (task,) = infilling.load(write(tmp_path, ROW))
    for text in ("    y = 2 * x\n", "    def double(): pass\n    y = x + x\n", "```"):
        assert extract(text, task) == text
    with Pool(1) as pool:
        assert pool.run(infilling.program(task, "    y = x + x\n"), LIMITS).passed
        assert pool.run(infilling.program(task, "    y = x\n"), LIMITS).name == "wrong"


def test_the_question_is_asked_in_the_models_sentinels(tmp_path: Path) -> None:
    (task,) = infilling.load(write(tmp_path, ROW))
    ask, chat = asked(tmp_path, benchmark="infilling")
    text, stop = ask(task)
    tokens = AutoTokenizer.from_pretrained(BASE).tokenize(text)
    names = [name.strip("<|>") for name in tokens if "fim" in name]
    assert names == ["fim_prefix", "fim_suffix", "fim_middle"] and "fim_middle" in tokens[-1]
    assert not chat and stop == ()
    with pytest.raises(WishError, match="infilling is asked in sentinels"):
        asked(tmp_path, benchmark="infilling", chat="yes")


@pytest.mark.parametrize("wanted", ["no", "yes"])
def test_chat_and_base_models_are_asked_differently(tmp_path: Path, wanted: str) -> None:
    (task,) = infilling.load(write(tmp_path, ROW))
    ask, chat = asked(tmp_path, benchmark="humaneval", chat=wanted)
    text, stop = ask(task)
    assert chat == (wanted == "yes") == ("Answer with the whole code" in text)
    assert text.startswith("def double") == (wanted == "no") and stop == ()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({key: ROW[key] for key in ROW if key != "suffix"}, "suffix missing or not a text"),
        (ROW | {"test": "pass"}, "defines no check"),
    ],
)
def test_rows_that_are_no_task(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(WishError, match=message):
        infilling.load(write(tmp_path, row))


def test_a_file_is_needed(tmp_path: Path) -> None:
    with pytest.raises(WishError, match="infilling needs a file"):
        infilling.load(None)
    with pytest.raises(WishError, match="seen before"):
        infilling.load(write(tmp_path, ROW, ROW))
