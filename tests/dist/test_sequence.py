"""Ranks that share rows come to the losses and gradients of ranks that do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.dist

IN_FORCE = {
    "none": "one rank",
    "ddp": "ddp over {} ranks (gloo)",
    "zero2": "ZeRO-2 over {} ranks (gloo)",
    "zero3": "ZeRO-3 over {} ranks (gloo)",
    "fsdp2": "FSDP2 over {} ranks (gloo)",
}
TRAIN = {"steps": 4, "global_batch": 4, "learning_rate": 2e-3, "warmup_steps": 1}


@pytest.fixture()
def run(wish: Callable[..., Path], launch: Callable) -> Callable[..., Any]:
    """Train with a strategy over `ranks`, `sequence` of them a row; what was in force is asserted."""

    def start(name: str, strategy: str, ranks: int, sequence: int, **sections: dict[str, Any]) -> Any:
        parallel = {"device": "cpu", "threads": 1, "strategy": strategy, "processes": ranks}
        parallel |= {"sequence": sequence, "precision": "fp32"} | sections.pop("parallel", {})
        train = TRAIN | sections.pop("train", {})
        ended = launch(wish(name, parallel=parallel, train=train, **sections))
        assert ended.exit_code == 0, ended.output
        assert ended.facts["strategy"].startswith(IN_FORCE[strategy].format(ranks))
        assert ended.facts["sequence"] == sequence
        assert ended.facts["attention"] == ("ulysses" if sequence > 1 else "sdpa")
        assert (f"{sequence} ranks a row" in ended.output) == (sequence > 1)
        return ended

    return start


def demand_same(one: Any, other: Any, *, loss: float = 1e-5, norm: float = 1e-4) -> None:
    """Losses, gradient norms and counts of tokens of every step."""
    assert one.losses == pytest.approx(other.losses, rel=loss) and len(one.losses) >= TRAIN["steps"]
    for name, most in (("grad_norm", norm), ("trained_tokens", 0), ("tokens", 0)):
        values = [[r[name] for r in ended.records if name in r] for ended in (one, other)]
        assert values[0] == pytest.approx(values[1], rel=most, abs=0), name


def test_two_ranks_share_a_row_under_zero2(run: Callable[..., Any]) -> None:
    whole = run("whole", "none", 1, 1)
    assert whole.losses[4] < whole.losses[1] * 0.97, "nothing was learnt, so nothing is compared"
    demand_same(run("shared", "zero2", 2, 2), whole)
