"""Packing: every sample once, no row too full, and next to no space lost."""

from __future__ import annotations

import gzip
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.pack import best_fit, singles


@given(st.lists(st.integers(1, 64), max_size=200), st.integers(64, 100))
def test_every_sample_lies_in_one_row_and_no_row_overflows(lengths: list[int], capacity: int) -> None:
    sizes = np.array(lengths, dtype=np.int64)
    packing = best_fit(sizes, capacity)
    assert sorted(packing.members.tolist()) == list(range(len(lengths)))
    rows = [packing.row(index) for index in range(len(packing))]
    assert all(len(row) and sizes[row].sum() <= capacity for row in rows)
    # Best fit never leaves two rows that would fit into one: it would have put the second's samples into the first.
    filled = sorted(int(sizes[row].sum()) for row in rows)
    assert len(filled) < 2 or filled[0] + filled[1] > capacity


@given(st.lists(st.integers(1, 50), min_size=1, max_size=100), st.randoms())
def test_the_number_of_rows_depends_on_the_lengths_alone(lengths: list[int], random: object) -> None:
    shuffled = list(lengths)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert len(best_fit(np.array(lengths), 50)) == len(best_fit(np.array(shuffled), 50))


def test_a_sample_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="1 to 8"):
        best_fit(np.array([3, 9]), 8)


def test_singles_hold_one_sample_each() -> None:
    assert [singles(3).row(index).tolist() for index in range(3)] == [[0], [1], [2]]


def _efficiency(lengths: np.ndarray, capacity: int) -> float:
    return float(lengths.sum()) / (len(best_fit(lengths, capacity)) * capacity)


@pytest.mark.parametrize("capacity", [1024, 2048, 4096])
def test_rows_are_99_percent_full_on_lengths_as_instructions_have_them(capacity: int) -> None:
    drawn = np.random.default_rng(0).lognormal(mean=5.3, sigma=0.8, size=20_000)
    assert _efficiency(np.clip(drawn, 8, capacity).astype(np.int64), capacity) >= 0.99


def test_mbpp_takes_at_most_one_row_more_than_its_tokens_fill() -> None:
    folder = os.environ.get("TEMPER_DATA")
    file = Path(folder or ".", "mbpp", "mbpp.jsonl.gz")
    if not folder or not file.is_file():
        pytest.skip("TEMPER_DATA names no folder with mbpp/mbpp.jsonl.gz")
    with gzip.open(file, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    # About three characters a token of code.
    lengths = np.array([min((len(row["text"]) + len(row["code"])) // 3 + 1, 1024) for row in rows])
    # 83 rows at least: so few that one more already costs a percent.
    assert len(best_fit(lengths, 1024)) <= -(-lengths.sum() // 1024) + 1


def test_a_hundred_thousand_samples_pack_in_about_a_second() -> None:
    drawn = np.random.default_rng(1).lognormal(mean=5.5, sigma=1.0, size=100_000)
    lengths = np.clip(drawn, 1, 4096).astype(np.int64)
    start = time.process_time()
    best_fit(lengths, 4096)
    assert time.process_time() - start < 5.0
