"""Rows that are not packed are laid end to end where the model keeps samples apart: padding costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.dist


def test_losses_are_those_of_padded_rows(wish: Callable[..., Path], launch: Callable) -> None:
    ended = {}
    sections: dict[str, Any] = {
        "data": {"packing": False, "validation_fraction": 0.2},
        "train": {"global_batch": 8, "micro_batch": 2, "steps": 3, "validate_every": 3},
        "parallel": {"strategy": "zero2", "processes": 2, "precision": "fp32"},
    }
    for attention in ("auto", "sdpa"):
        ended[attention] = launch(wish(attention, model={"attention": attention}, **sections))
        assert ended[attention].exit_code == 0, ended[attention].output
        assert ended[attention].facts["strategy"].startswith("ZeRO-2 over 2 ranks")
    joined, padded = ended["auto"], ended["sdpa"]
    assert (joined.facts["attention"], joined.facts["rows_joined"]) == ("by_sample", True)
    assert (padded.facts["attention"], padded.facts["rows_joined"]) == ("sdpa", False)
    assert joined.losses == pytest.approx(padded.losses, rel=1e-5)
    norms, validated = ([[r[key] for r in one.records if key in r] for one in (joined, padded)] for key in ("grad_norm", "validation_loss"))
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
    assert validated[0] == pytest.approx(validated[1], rel=1e-5)
    assert joined.performance["packing"] > padded.performance["packing"]
