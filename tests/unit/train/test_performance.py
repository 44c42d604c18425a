"""The card's two lines: what is known is told, what is not is left out."""

from __future__ import annotations

from dataclasses import replace

from engine.train.performance import Card, Saves, summary

CARD = Card(
    first_step=11,
    last_step=90,
    device="NVIDIA H100 80GB HBM3",
    ranks=2,
    precision="bf16",
    tokens_per_second=3120.4,
    trained_tokens_per_second=2870.0,
    packing=0.964,
    flops_per_token={"6N": 6.0, "4N": 4.0, "needed": 3.0},
    mfu={"6N": 0.41, "4N": 0.29, "needed": 0.27},
    peak_tflops=1978.0,
    ceiling_tflops=1400.0,
    ceiling_share=0.38,
    clock="device, in 8 of 80 steps",
    seconds={"data": 0.4, "forward": 30.0, "backward": 60.0, "save": 9.58, "evaluate": 0.0, "log": 0.02},
    saves=Saves(4, 2395.0, 3000.0, 0.0958),
)


def test_an_adapters_card_has_both_conventions() -> None:
    assert list(summary(CARD)) == [
        "perf: steps 11 to 90: 3,120 tokens/s (2,870 trained), 96% packed, MFU 41% (6N) and 29% (4N) of 1,978 TFLOPS, "
        "38% of the 1,400 TFLOPS that matrix products reach here",
        "time (device, in 8 of 80 steps): backward 60%, forward 30%, save 10%, data 0.4%; 4 saves of 2,395 ms",
    ]


def test_where_every_weight_trains_there_is_one_figure() -> None:
    full = replace(CARD, flops_per_token={"6N": 6.0, "4N": 6.0, "needed": 5.0})
    assert "MFU 41% (6N) of" in next(summary(full)) and "4N" not in next(summary(full))


def test_what_is_not_known_is_left_out() -> None:
    bare = replace(CARD, mfu=None, peak_tflops=None, ceiling_tflops=None, ceiling_share=None)
    first, second = summary(replace(bare, saves=Saves(0, 0.0, 0.0, 0.0)))
    assert first.endswith("96% packed") and "saves" not in second
    small = replace(bare, ceiling_tflops=0.399, ceiling_share=0.011)
    assert next(summary(small)).endswith("1.1% of the 399 GFLOPS that matrix products reach here")
