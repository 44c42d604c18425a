"""What is put to a model: examples that are no tasks, a prefix, a chat in the model's template; wishes refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from engine.config import Evaluate, Run
from engine.config.asked import WITH_EXAMPLES
from engine.errors import WishError
from engine.evaluate.benchmarks import BENCHMARKS, find
from engine.evaluate.question import questions
from engine.evaluate.shots import OWN, fingerprint, shots
from engine.evaluate.task import Task

BASE = Path(__file__).parent.parent.parent.parent / "configs" / "tiny" / "base"


@pytest.fixture()
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(BASE)


def put(tokenizer: Any, tasks: list[Task], **evaluate: Any) -> tuple[str, tuple[str, ...], bool]:
    """What the model sees of the first task, its stops, and whether it is a chat."""
    wish = Evaluate.model_validate(evaluate)
    run = Run.model_validate({"output": "runs/x", "model": {"path": str(BASE)}, "evaluate": evaluate})
    ask, chat = questions(run, tokenizer, shots(wish, tasks))
    return *ask(tasks[0]), chat


def lines(folder: Path, *rows: Any) -> str:
    file = folder / "shots.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_a_base_model_goes_on_after_prefix_and_examples(tokenizer: Any) -> None:
    tasks = find("basics").load(None, limit=20)
    text, stop, chat = put(tokenizer, tasks, benchmark="basics", shots=3, prefix="# Python 3\n")
    assert not chat and stop == tasks[0].stop
    assert text.startswith("# Python 3\n") and text.endswith(tasks[0].prompt)
    examples = text.removeprefix("# Python 3\n").removesuffix(tasks[0].prompt)
    assert examples.endswith("\n\n\n") and len(re.findall(r"^(?:def|class) ", examples, re.M)) == 3
    compile(examples, "examples", "exec")
    assert text == put(tokenizer, tasks, benchmark="basics", shots=3, prefix="# Python 3\n")[0]


def test_mbpp_shows_the_papers_three_first(tokenizer: Any, field_data: Path) -> None:
    data = str(field_data / "mbpp" / "mbpp.jsonl.gz")
    tasks = find("mbpp").load(data, limit=3)
    text, stop, _ = put(tokenizer, tasks, benchmark="mbpp", data=data, shots=3)
    wanted = find("mbpp").load(data, split="prompt")[1:4]
    assert [task.id for task in wanted] == ["MBPP/2", "MBPP/3", "MBPP/4"]
    assert text == "".join(f"{(t.prompt + t.reference).rstrip()}\n\n\n" for t in wanted) + tasks[0].prompt
    assert '\n"""' in stop, "a model that goes on with an example of its own is stopped"
    assert len(shots(Evaluate(benchmark="mbpp", data=data, shots=10), tasks)) == 10
    with pytest.raises(WishError, match="shots is 11 and the examples of mbpp has 10"):
        shots(Evaluate(benchmark="mbpp", data=data, shots=11), tasks)


def test_a_chat_has_a_system_turn_and_examples_as_turns(tokenizer: Any, small: Path, tmp_path: Path) -> None:
    tasks = find("humaneval").load(str(small))
    file = lines(tmp_path, {"prompt": "def one():\n", "completion": "    return 1\n", "id": 4})
    told = {"benchmark": "humaneval", "chat": "yes", "system": "Be terse.", "shots": 1, "shots_data": file}
    text, stop, chat = put(tokenizer, tasks, **told)
    assert chat and stop == ()
    parts = [
        "Be terse.",
        "def one():\n```",
        "```python\ndef one():\n    return 1\n```",
        tasks[0].prompt.rstrip(),
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    roles = re.findall(r"<\|im_start\|>(\w+)", text)
    assert roles == ["system", "user", "assistant", "user", "assistant"]


def test_a_template_without_a_place_for_the_system_turn(tokenizer: Any, small: Path) -> None:
    tasks = find("humaneval").load(str(small))
    told = {"benchmark": "humaneval", "chat": "yes", "system": "Be terse."}
    loop = (
        "{% for m in messages %}{% if m.role == 'system' %}X{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    tokenizer.chat_template = loop.replace("X", "{{ raise_exception('no system role') }}")
    with pytest.raises(WishError, match="refuses the question .no system role"):
        put(tokenizer, tasks, **told)
    tokenizer.chat_template = loop.replace("X", "")
    with pytest.raises(WishError, match="the chat template leaves out what the system says"):
        put(tokenizer, tasks, **told)
    tokenizer.chat_template = None
    with pytest.raises(WishError, match="system is set and the tokenizer has no chat template"):
        put(tokenizer, tasks, benchmark="humaneval", chat="auto", system="Be terse.")


def test_a_prefix_has_no_place_in_a_chat(tokenizer: Any, small: Path) -> None:
    with pytest.raises(WishError, match="prefix is set and the model is asked in chat"):
        put(tokenizer, find("humaneval").load(str(small)), benchmark="humaneval", chat="auto", prefix="#")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "has 0"),
        ([{"prompt": "def one():\n"}], r"shots.jsonl:1: an example without a text as its completion"),
        (["x"], r"shots.jsonl:1: an example without"),
        (
            [{"prompt": 'def double(x):\n    """Task Small/0."""\n', "completion": "    pass"}],
            "is the task Small/0",
        ),
    ],
)
def test_examples_that_are_none(small: Path, tmp_path: Path, rows: list[Any], words: str) -> None:
    wish = Evaluate(benchmark="humaneval", shots=1, shots_data=lines(tmp_path, *rows))
    with pytest.raises(WishError, match=words):
        shots(wish, find("humaneval").load(str(small)))


def test_the_rules_know_who_has_examples() -> None:
    assert set(WITH_EXAMPLES) == set(OWN) <= set(BENCHMARKS)


def test_other_examples_have_another_fingerprint() -> None:
    tasks = find("basics").load(None, limit=2)
    prints = {fingerprint(shots(Evaluate(benchmark="basics", shots=n), tasks)) for n in (0, 1, 2)}
    assert len(prints) == 3 and "" in prints
