"""Pieces cut for one number of ranks are put together for another, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.checkpoint.pieces import Piece, Saved, write
from engine.errors import TemperError, WishError


def written(folder: Path, borders: list[int], *, blocks: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight of 10 elements and its moment, cut at `borders`, one rank a piece."""
    weight, moment = torch.randn(10), torch.randn(10)
    for rank, (start, end) in enumerate(zip(borders, borders[1:], strict=False)):
        state = {"exp_avg": moment[start:end], "step": torch.tensor(7.0)}
        if blocks:
            state = {
                "state1": torch.zeros(end - start, dtype=torch.uint8),
                "absmax1": torch.ones(1),
                "step": 7,
            }
        write(folder, rank, [Piece("w", start, weight[start:end], state)], {"scale": 2.0})
    return weight, moment


@pytest.mark.parametrize("then", [[0, 10], [0, 5, 10], [0, 3, 4, 10]])
@pytest.mark.parametrize("now", [[0, 10], [0, 5, 10], [0, 1, 2, 9, 10]])
def test_any_cut_gives_the_same_elements(tmp_path: Path, then: list[int], now: list[int]) -> None:
    weight, moment = written(tmp_path, then)
    saved = Saved(tmp_path)
    assert saved.scaling == {"scale": 2.0}
    for start, end in zip(now, now[1:], strict=False):
        piece = saved.cut("w", start, end - start)
        assert torch.equal(piece.master, weight[start:end])
        assert torch.equal(piece.state["exp_avg"], moment[start:end])
        assert piece.state["step"] == 7


def test_elements_nobody_wrote_are_missed(tmp_path: Path) -> None:
    written(tmp_path, [0, 4, 10])
    (tmp_path / "rank-1.pt").unlink()
    saved = Saved(tmp_path)
    assert saved.cut("w", 1, 2).master.numel() == 2
    with pytest.raises(TemperError, match="lacks elements 4 to 6 of w"):
        saved.cut("w", 2, 4)
    with pytest.raises(TemperError, match="lacks elements 0 to 1 of v"):
        saved.cut("v", 0, 1)


def test_state_in_blocks_comes_back_whole_or_not_at_all(tmp_path: Path) -> None:
    written(tmp_path, [0, 6, 10], blocks=True)
    saved = Saved(tmp_path)
    assert saved.cut("w", 0, 6).state["absmax1"].numel() == 1
    with pytest.raises(WishError, match="in blocks of elements"):
        saved.cut("w", 0, 5)


def test_a_folder_of_an_earlier_version_says_so(tmp_path: Path) -> None:
    with pytest.raises(WishError, match="an earlier version"):
        Saved(tmp_path)
