"""FLOPs: the formulas against a hand count, and against what torch counts while a model computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
)

from engine.train.flops import Work, weights

HIDDEN, INNER, LAYERS, HEADS, KV, SIZE, VOCABULARY = 64, 96, 2, 4, 2, 16, 128
ROWS, LENGTH = 2, 24
QUERY, KEY = HIDDEN * HEADS * SIZE, HIDDEN * KV * SIZE
LAYER = 2 * QUERY + 2 * KEY + 3 * HIDDEN * INNER
HEAD = HIDDEN * VOCABULARY


def llama(*, tied: bool = False) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV,
        tie_word_embeddings=tied,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config)


def counted(model: torch.nn.Module) -> float:
    """FLOPs of a forward and backward as torch sees them."""
    ids = torch.randint(VOCABULARY, (ROWS, LENGTH))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=False).logits.sum().backward()
    return counter.get_total_flops()


# Eager attention multiplies all pairs, those that the mask then drops too.
EVERY_PAIR = Work(ROWS * LENGTH, ROWS * LENGTH, ROWS * LENGTH**2)


@pytest.mark.parametrize("tied", [False, True])
def test_full_training_is_what_torch_counts_and_what_a_hand_does(tied: bool) -> None:
    model = llama(tied=tied)
    found = weights(model)
    assert found.products == found.products_trained == LAYERS * LAYER + HEAD
    assert found.head == found.head_trained == HEAD
    assert found.total == found.trained == sum(p.numel() for p in model.parameters())
    tokens = ROWS * LENGTH
    attention = 12 * LAYERS * HEADS * SIZE * ROWS * LENGTH**2
    assert found.six(EVERY_PAIR) == 6 * (LAYERS * LAYER + HEAD) * tokens + attention
    assert found.four(EVERY_PAIR) == found.needed(EVERY_PAIR) == found.six(EVERY_PAIR) == counted(model)


def test_a_frozen_base_costs_four_and_its_adapter_six() -> None:
    rank = 4
    model = get_peft_model(llama(), LoraConfig(r=rank, target_modules="all-linear", lora_dropout=0.0))
    found = weights(model)
    adapter = (
        LAYERS * rank * (4 * HIDDEN + 2 * HEADS * SIZE + 2 * KV * SIZE + 3 * (HIDDEN + INNER))
    )  # inputs and outputs of q, k, v, o, gate, up, down
    assert found.products_trained == found.trained == adapter
    assert found.products == LAYERS * LAYER + HEAD + adapter
    # The first layer's q, k and v read the embedding, which is frozen: nobody asks for the gradient of their input.
    unasked = 2 * (QUERY + 2 * KEY + 3 * HIDDEN * rank) * ROWS * LENGTH
    assert found.four(EVERY_PAIR) - unasked == counted(model)
    assert found.six(EVERY_PAIR) == found.four(EVERY_PAIR) + 2 * (LAYERS * LAYER + HEAD) * ROWS * LENGTH


def test_the_head_is_needed_for_trained_tokens_and_attention_for_the_pairs_there_are() -> None:
    found = weights(llama())
    work = Work(tokens=40, trained_tokens=10, attended=4 * 10 * 11 // 2)
    assert found.needed(work) == found.six(work) - 6 * HEAD * 30
    attention = 12 * LAYERS * HEADS * SIZE * 4 * 10 * 11 // 2
    assert found.six(work) == 6 * (LAYERS * LAYER + HEAD) * 40 + attention


def test_four_bit_weights_count_as_what_they_stand_for(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    quantised = AutoModelForCausalLM.from_pretrained(
        tmp_path,
        dtype=torch.bfloat16,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_quant_storage=torch.bfloat16
        ),
    )
    packed = sum(p.numel() for p in quantised.parameters())
    found, plain = weights(quantised), weights(llama())
    assert packed < found.total == plain.total
    assert found.products == plain.products


def test_lookups_are_no_products_and_a_matrix_may_be_no_linear_layer() -> None:
    config = GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=VOCABULARY, n_positions=64)
    found = weights(AutoModelForCausalLM.from_config(config))
    assert found.products == 12 * 32 * 32 + 32 * VOCABULARY, "positions are looked up, the tied head is not"
    assert found.width == 32


def test_a_token_meets_the_experts_it_is_sent_to() -> None:
    config = MixtralConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV,
        num_local_experts=8,
        num_experts_per_tok=2,
        head_dim=SIZE,
    )
    found = weights(AutoModelForCausalLM.from_config(config))
    attention, router, expert = 2 * QUERY + 2 * KEY, HIDDEN * 8, 3 * HIDDEN * INNER
    assert found.products == LAYERS * (attention + router + 2 * expert) + HEAD
