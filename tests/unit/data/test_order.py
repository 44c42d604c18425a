"""Order: pure in (seed, epoch), mixtures keep their shares, splits do not move."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.data.order import epoch_order, permutation, share, split_of

seeds = st.integers(0, 2**32)


@given(st.integers(0, 300), st.integers(0, 2**64 - 1))
def test_a_permutation_holds_every_index_once(count: int, seed: int) -> None:
    assert sorted(permutation(count, seed=seed).tolist()) == list(range(count))


def test_the_permutation_is_the_same_in_every_version() -> None:
    assert permutation(8, seed=1).tolist() == [4, 3, 7, 0, 1, 5, 6, 2]


@given(
    st.lists(st.tuples(st.integers(1, 40), st.floats(0.1, 3.0)), min_size=1, max_size=4),
    seeds,
    st.integers(0, 9),
)
def test_an_epoch_is_pure_and_takes_each_source_by_its_weight(
    sources: list[tuple[int, float]], seed: int, epoch: int
) -> None:
    counts, weights = zip(*sources, strict=True)
    first = epoch_order(counts, weights, seed=seed, epoch=epoch)
    again = epoch_order(counts, weights, seed=seed, epoch=epoch)
    assert np.array_equal(first.rows, again.rows) and np.array_equal(first.sources, again.sources)
    taken = Counter(first.sources.tolist())
    assert taken == {index: share(count, weight) for index, (count, weight) in enumerate(sources)}


@given(st.integers(2, 60), seeds)
def test_half_a_weight_shows_the_other_half_in_the_next_epoch(pairs: int, seed: int) -> None:
    halves = [epoch_order([2 * pairs], [0.5], seed=seed, epoch=epoch).rows.tolist() for epoch in (0, 1)]
    assert sorted(halves[0] + halves[1]) == list(range(2 * pairs))


def test_weight_two_shows_every_row_twice_as_two_passes() -> None:
    order = epoch_order([10], [2.0], seed=3, epoch=4)
    assert Counter(order.rows.tolist()) == dict.fromkeys(range(10), 2)
    assert set(zip(order.rows.tolist(), order.passes.tolist(), strict=True)) == {
        (row, number) for row in range(10) for number in (8, 9)
    }


def test_epochs_and_seeds_differ() -> None:
    orders = {tuple(epoch_order([50], [1.0], seed=s, epoch=e).rows) for s in (0, 1) for e in (0, 1)}
    assert len(orders) == 4


def test_splits_keep_their_share_and_do_not_move_when_the_fractions_grow() -> None:
    ids = [f"rows.jsonl:{n}" for n in range(4000)]
    small = {i: split_of(i, seed=7, validation=0.1, test=0.05) for i in ids}
    shares = Counter(small.values())
    assert abs(shares["validation"] - 400) < 80 and abs(shares["test"] - 200) < 60
    larger = {i: split_of(i, seed=7, validation=0.2, test=0.05) for i in ids}
    assert all(larger[i] == small[i] for i in ids if small[i] != "train")
    assert any(split_of(i, seed=8, validation=0.1, test=0.05) != small[i] for i in ids)
