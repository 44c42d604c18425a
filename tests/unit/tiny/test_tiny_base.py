"""The embedded base model: a folder as users' models are, small enough to ship, with a tokenizer that loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from engine.evaluate.benchmarks import basics

MOST_BYTES = 10_000_000
BLOCK = 64
"""Weights that share a quantisation constant in NF4."""


@pytest.fixture(scope="module")
def folder(root: Path) -> Path:
    return root / "configs" / "tiny" / "base"


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder)


def test_it_is_small(folder: Path) -> None:
    assert sum(file.stat().st_size for file in folder.iterdir()) <= MOST_BYTES


def test_the_weights_are_bf16_and_nf4_blocks_fit(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert all(size % BLOCK == 0 for module in linear for size in module.weight.shape)


@pytest.mark.parametrize(
    "text",
    [
        "def f(x):\n    return x\n",
        "naïve 名 \x00\t\r\n  \u200d🙂 \n\n\n    \n",
        " a  b   c\n\n",
        "x = [1, 20]  # 3\n",
        "",
    ],
)
def test_any_text_survives_a_round_trip(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_tokens_that_others_rely_on(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.eos_token == "<|endoftext|>"
    assert tokenizer.pad_token == "<|pad|>"
    assert tokenizer.bos_token is None
    assert len(tokenizer("2048").input_ids) == 4, "digits stand alone"
    names = ["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|im_start|>", "<|im_end|>"]
    for word in (*names, *(" " * width for width in (4, 8, 12, 16))):
        assert len(tokenizer(word).input_ids) == 1, repr(word)


def test_prompt_and_completion_join_without_changing_their_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    for row in basics.training_rows(50, seed=1):
        apart = tokenizer(row["prompt"]).input_ids + tokenizer(row["completion"]).input_ids
        assert tokenizer(row["prompt"] + row["completion"]).input_ids == apart


def test_a_chat_is_rendered_with_the_assistants_span(tokenizer: PreTrainedTokenizerBase) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "x"}]
    found = tokenizer.apply_chat_template(
        turns, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    kept = [token for token, mask in zip(found["input_ids"], found["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(kept) == "x<|im_end|>"
