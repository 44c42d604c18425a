"""Ranks of a machine train from one copy of the encoded rows, the same as from their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.dist


def test_two_ranks_and_the_next_start_share_what_one_has_encoded(
    wish: Callable[..., Path], launch: Callable, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    parallel = {"strategy": "ddp", "processes": 2, "device": "cpu", "threads": 1}
    train = {"steps": 3, "global_batch": 4}
    own = launch(wish("own", train=train, parallel=parallel, data={"cache": "none"}))
    assert own.exit_code == 0, own.output
    for name in ("first", "second"):
        run = launch(wish(name, train=train, parallel=parallel, data={"cache": str(kept)}))
        assert run.exit_code == 0, run.output
        assert run.facts["strategy"].startswith("ddp over 2 ranks")
        assert run.losses == own.losses and run.facts["data"] == own.facts["data"]
        assert len(list(kept.iterdir())) == 1
    assert f"rows: kept in {kept}" in run.output
