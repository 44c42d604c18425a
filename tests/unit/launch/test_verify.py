"""Which variants a run is verified in, and what counts as the same."""

from __future__ import annotations

import math
from typing import Any

import pytest

from engine.config import Run, check
from launch.verify import LIMITS, Trace, Variant, apart, compared, load_with, variants


def wish(**sections: Any) -> Run:
    tree: dict[str, Any] = {
        "output": "runs/verified",
        "model": {"path": "configs/tiny/base"},
        "data": {"train": [{"path": "rows.jsonl"}], "max_length": 64},
        "train": {"global_batch": 8, "micro_batch": 2},
        "parallel": {"device": "cpu", "strategy": "zero2", "processes": 2},
    }
    return Run.model_validate(tree | {name: tree.get(name, {}) | values for name, values in sections.items()})


def names(run: Run) -> list[str]:
    return [variant.name for variant in variants(run)]


def test_two_ranks_are_cut_in_every_other_way() -> None:
    assert names(wish()) == [
        "as it is",
        "micro-batch 1",
        "micro-batch 4",
        "1 rank",
        "ddp",
        "zero1",
        "zero3",
        "fsdp2",
        "optimizer offloaded",
        "loss from logits",
        "masks and padding",
        "activations recomputed",
        "layers' inputs offloaded",
        "layers compiled",
    ]


def test_what_the_rules_refuse_is_no_variant() -> None:
    assert "fsdp2" not in names(wish(adapter={"kind": "qlora"}))
    assert "micro-batch 4" not in names(wish(train={"global_batch": 4}))
    alone = names(wish(parallel={"strategy": "none", "processes": 1}))
    assert "ddp" not in alone and "micro-batch 4" in alone
    for variant in variants(wish()):
        assert not check(load_with(wish(), variant)), variant


def test_layers_that_are_already_called_differently_are_also_called_plainly() -> None:
    both = wish(model={"activation_checkpointing": True, "activation_offload": True, "compile": True})
    assert names(both)[-3:] == ["activations kept", "layers' inputs kept", "layers not compiled"]
    assert "zero3" not in names(both)


def test_a_variant_is_the_run_with_its_overrides() -> None:
    changed = load_with(
        wish(), Variant("x", ("parallel.strategy=zero3", "train.micro_batch=4", "train.chunked_loss=false"))
    )
    assert (changed.parallel.strategy, changed.train.micro_batch, changed.train.chunked_loss) == (
        "zero3",
        4,
        False,
    )


@pytest.mark.parametrize(("loss", "norm", "same"), [(1.0, 5.0, True), (1.1, 5.0, False), (1.0, 6.0, False)])
def test_a_difference_beyond_rounding_is_one(loss: float, norm: float, same: bool) -> None:
    reference = Trace("ddp", (2.0, 1.0), (4.0, 5.0))
    row = compared(Variant("x"), Trace("zero3", (2.0, loss), (4.0, norm)), reference, LIMITS["fp32"])
    assert row.same is same and ("DIFFERENT" in row.line) is not same


def test_another_number_of_steps_is_never_the_same() -> None:
    assert apart((1.0, 2.0), (1.0,)) == math.inf


def test_rows_that_ranks_share_are_compared_with_rows_of_one() -> None:
    assert "rows on one rank each" not in names(wish())
    shared = wish(parallel={"sequence": 2})
    assert "rows on one rank each" in names(shared) and "1 rank" not in names(shared)
