"""The embedded base model's tokenizer, on the rows the demo trains on."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from engine.config import Run
from engine.data import end_of_turn, fim, prepare
from engine.evaluate.benchmarks import basics, texts

BASE = Path(__file__).parents[3] / "configs" / "tiny" / "base"


@pytest.fixture(scope="module")
def base() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(BASE)


def test_the_demo_rows_train_their_completions(
    base: Any, write: Callable[..., str], make_run: Callable[..., Run]
) -> None:
    rows = list(islice(basics.training_rows(200), 200))
    prepared = prepare(make_run(write(rows), max_length=256), base, benchmark_texts=texts("basics"))
    corpus = prepared.corpora[0]
    assert corpus.ids == tuple(row["id"] for row in rows)
    for index, row in enumerate(rows):
        sample = corpus.sample(index, 0)
        prompt = base(row["prompt"])["input_ids"]
        assert sample.ids[: len(prompt)].tolist() == prompt
        learnt = base.decode(sample.ids[sample.trained].tolist(), skip_special_tokens=False)
        assert learnt == row["completion"] + base.eos_token
    assert prepared.facts["decontamination"].endswith("0 overlap")


def test_it_has_a_chat_template_that_ends_turns_and_sentinels_to_infill(base: Any) -> None:
    assert base.convert_ids_to_tokens(end_of_turn(base)) == "<|im_end|>"
    assert fim.sentinels(base).end == base.eos_token_id
