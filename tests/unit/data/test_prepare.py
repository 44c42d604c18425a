"""Prepare: splits, mixtures and facts; and every wrong wish stopped before the first step, with its fix."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.config import Run
from engine.data import IGNORED, prepare
from engine.errors import WishError

Write = Callable[..., str]
Make = Callable[..., Run]

PAIRS = [{"prompt": f"def f{n}(values):\n", "completion": f"    return values[{n}]\n"} for n in range(40)]


def test_facts_say_what_will_be_learnt_from(starcoder: Any, write: Write, make_run: Make) -> None:
    prepared = prepare(make_run(write(PAIRS), validation_fraction=0.2, test_fraction=0.2), starcoder)
    facts = prepared.facts
    rows = facts["train"]["rows"] + facts["validation"]["rows"] + facts["test_rows_set_aside"]
    assert rows == 40 and facts["test_rows_set_aside"] > 0
    assert facts["sources"][0]["format"] == "completion" and len(facts["sources"][0]["sha256"]) == 1
    counted = sum(
        b.trained_tokens for s in range(prepared.train.steps) for b in prepared.train.micro_batches(s)
    )
    assert facts["train"]["trained_tokens"] == counted > 0
    assert facts["end_of_text"] == "<|endoftext|>" and "stays trained" in facts["padding"]["note"]
    assert 0 < facts["packing_efficiency"] <= 1
    assert facts["duplicate_rows"] == facts["validation_rows_also_trained"] == 0


def test_pad_equal_to_eos_still_trains_eos(starcoder: Any, write: Write, make_run: Make) -> None:
    assert starcoder.pad_token_id == starcoder.eos_token_id
    prepared = prepare(make_run(write(PAIRS)), starcoder)
    batches = [b for s in range(prepared.train.steps) for b in prepared.train.micro_batches(s)]
    trained = torch.cat([b.labels.flatten() for b in batches])
    assert int((trained == starcoder.eos_token_id).sum()) == 40


def test_a_tokenizer_without_pad_pads_with_eos_and_says_so(llama3: Any, write: Write, make_run: Make) -> None:
    assert llama3.pad_token_id is None
    prepared = prepare(make_run(write(PAIRS)), llama3)
    assert prepared.facts["padding"]["token"] == "<|end|>" and "has none" in prepared.facts["padding"]["note"]


def test_validation_is_shared_out_evenly_and_wholly(chatml: Any, write: Write, make_run: Make) -> None:
    given = write(PAIRS[:7], "held.jsonl")
    run = make_run(write(PAIRS[7:]), validation=[{"path": given}], packing=False)
    alone = prepare(run, chatml).validation
    assert alone is not None and sum(len(batch.sample_ids) for batch in alone) == 7
    parts = [prepare(run, chatml, rank=rank, world_size=4).validation for rank in range(4)]
    assert {len(part or []) for part in parts} == {2}
    assert [n for part in parts for b in part or [] for n in b.sample_ids] == [
        n for b in alone for n in b.sample_ids
    ]


def test_sources_with_the_same_ids_are_told_apart(chatml: Any, write: Write, make_run: Make) -> None:
    rows = [{"id": n, **row} for n, row in enumerate(PAIRS)]
    prepared = prepare(make_run(write(rows, "a.jsonl"), write(rows, "b.jsonl")), chatml)
    ids = [name for corpus in prepared.corpora for name in corpus.ids]
    assert len(set(ids)) == 80 and prepared.facts["duplicate_rows"] == 40


def test_rows_that_are_in_both_splits_are_counted(chatml: Any, write: Write, make_run: Make) -> None:
    run = make_run(write(PAIRS, "a.jsonl"), validation=[{"path": write(PAIRS[:3], "b.jsonl")}])
    assert prepare(run, chatml).facts["validation_rows_also_trained"] == 3


def test_worker_processes_give_the_same_tokens(chatml: Any, write: Write, make_run: Make) -> None:
    path = write([{"text": f"def f{n}(): return {n}"} for n in range(1100)])
    one, two = (prepare(make_run(path, processes=n), chatml).corpora[0] for n in (1, 2))
    assert (one.tokens == two.tokens).all() and (one.offsets == two.offsets).all() and one.ids == two.ids


@pytest.mark.parametrize(
    ("overlong", "rows", "truncated", "dropped"), [("drop", 30, 0, 10), ("truncate", 40, 10, 0)]
)
def test_overlong_rows_are_dropped_or_cut_as_asked(
    overlong: str, rows: int, truncated: int, dropped: int, chatml: Any, write: Write, make_run: Make
) -> None:
    texts = [{"text": "x = 1\n" * (60 if n % 4 == 0 else 2)} for n in range(40)]
    prepared = prepare(make_run(write(texts), max_length=64, overlong=overlong), chatml)
    train = prepared.facts["train"]
    assert (train["rows"], train["truncated"], train["dropped"]) == (rows, truncated, dropped)
    assert train["length_percentiles"]["100"] <= 64


def _without(tokenizer: Any, **changes: Any) -> Any:
    changed = copy.deepcopy(tokenizer)
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed


CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}
MUTE = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("rows", "data", "told"),
    [
        (
            PAIRS[:3] + [{"prompt": "x " * 300, "completion": "y"}],
            {},
            r"1 of 4 samples .* data\.max_length 128; .* \d+ tokens \(.*rows\.jsonl:4\): set data\.max_length",
        ),
        ([{"text": "x " * 300}], {"overlong": "drop"}, r"all 1 samples are longer than .*the shortest has"),
        ([{"prompt": "x " * 300, "completion": "y"}], {"overlong": "truncate"}, r"no trained .*lost it when"),
        ([*PAIRS[:2], {"prompt": "p", "completion": ""}], {}, r"1 of 3 samples .*no trained token \(.*:3\)"),
        ([CHAT, MUTE, MUTE], {}, r"2 of 3 samples .* \(.*:2, .*:3\): give each an"),
        ([{"text": ""}], {}, "1 of 1 samples have no trained token"),
        (PAIRS[:4], {"validation_fraction": 0.001}, "no row is left for validation"),
        (PAIRS[:4], {"validation_fraction": 0.5, "test_fraction": 0.5}, "no row is left for train"),
        (
            [{"prompt": "x"}],
            {"fields": {"completion": "answer"}},
            r"has no column 'answer', which the format 'completion' needs",
        ),
        (['{"prompt": '], {}, r"rows\.jsonl:1 is not JSON"),
        ([], {}, "holds no rows"),
    ],
)
def test_wrong_data_stops_before_step_1(
    rows: list[Any], data: dict[str, Any], told: str, chatml: Any, write: Write, make_run: Make
) -> None:
    settings = dict(data)
    run = make_run({"path": write(rows), "fields": settings.pop("fields", {})}, **settings)
    with pytest.raises(WishError, match=told):
        prepare(run, chatml)


def test_an_empty_answer_trains_prompts_when_asked_to(chatml: Any, write: Write, make_run: Make) -> None:
    prepared = prepare(make_run(write([MUTE, CHAT]), mask_prompt=False), chatml)
    assert prepared.facts["train"]["trained_tokens"] == prepared.facts["train"]["tokens"] - 2


def test_tokens_the_model_does_not_know_are_refused(chatml: Any, write: Write, make_run: Make) -> None:
    with pytest.raises(WishError, match="the model knows 300 tokens"):
        prepare(make_run(write(PAIRS)), chatml, model_vocabulary=300)


def test_a_doubled_beginning_is_refused(llama3: Any, write: Write, make_run: Make) -> None:
    rows = [{"text": "fine"}, {"text": "<|begin|>written out"}]
    with pytest.raises(WishError, match=r"1 samples begin with '<\|begin\|>' twice \(.*rows\.jsonl:2\)"):
        prepare(make_run(write(rows)), llama3)
    twice = _without(llama3, chat_template="{{ bos_token }}" + llama3.chat_template)
    with pytest.raises(WishError, match="twice"):
        prepare(make_run(write([CHAT])), twice)


def test_a_conversation_without_a_template_is_refused(starcoder: Any, write: Write, make_run: Make) -> None:
    with pytest.raises(WishError, match=r"rows\.jsonl:1 is a conversation.*data\.chat_template"):
        prepare(make_run(write([CHAT])), starcoder)


def test_a_template_file_replaces_the_tokenizers_own(
    starcoder: Any, write: Write, make_run: Make, tmp_path: Path
) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}")
    prepared = prepare(make_run(write([CHAT]), chat_template=str(template)), copy.deepcopy(starcoder))
    (batch,) = prepared.train.micro_batches(0)[:1]
    trained = batch.labels[batch.labels != IGNORED].tolist()
    assert starcoder.decode(trained, skip_special_tokens=False).endswith("ho<|endoftext|>")
    for wrong, told in (("missing.jinja", "does not exist"), ("empty.jinja", "is empty")):
        (tmp_path / "empty.jinja").write_text(" ")
        with pytest.raises(WishError, match=told):
            prepare(make_run(write([CHAT]), chat_template=str(tmp_path / wrong)), copy.deepcopy(starcoder))


def test_a_tokenizer_without_end_of_text_is_refused(chatml: Any, write: Write, make_run: Make) -> None:
    with pytest.raises(WishError, match="the tokenizer has none.*eos_token"):
        prepare(make_run(write(PAIRS)), _without(chatml, eos_token=None))


def test_rows_that_hold_a_held_out_task_stop_the_run(chatml: Any, write: Write, make_run: Make) -> None:
    held = PAIRS[3]["prompt"] + PAIRS[3]["completion"]
    with pytest.raises(WishError, match=r"training rows overlap held-out tasks .*data\.decontaminate: false"):
        prepare(make_run(write(PAIRS)), chatml, benchmark_texts=[held])
    off = prepare(make_run(write(PAIRS), decontaminate=False), chatml, benchmark_texts=[held])
    assert off.facts["decontamination"].startswith("off")
    clean = prepare(
        make_run(write(PAIRS)), chatml, benchmark_texts={"t/1": "class Other:\n    kind = 'unlike'\n" * 3}
    )
    assert clean.facts["decontamination"].startswith("compared 40 training rows with 1 held-out tasks")


def test_rows_that_spell_special_tokens_are_counted(chatml: Any, write: Write, make_run: Make) -> None:
    rows = [*PAIRS[:2], {"prompt": "p", "completion": "stop<|endoftext|>go"}]
    assert prepare(make_run(write(rows)), chatml).facts["rows_spelling_special_tokens"] == 1
