"""The loader: a pure function of the step, the same rows for any world size, and a loss no layout changes."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.config import Run
from engine.data import IGNORED, Batch, Loader, prepare
from engine.data.batch import Encoded, build
from engine.data.corpus import Corpus
from engine.data.loader import Share
from engine.errors import WishError


def _corpus(lengths: list[int], name: str = "s") -> Corpus:
    """Samples whose tokens tell which sample and place they are."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = np.concatenate([np.arange(n) + 1000 * row for row, n in enumerate(lengths)]).astype(np.int32)
    ids = tuple(f"{name}{row}" for row in range(len(lengths)))
    trained = np.ones(len(tokens), dtype=bool)
    trained[offsets[:-1]] = False
    short = np.zeros(len(lengths), dtype=bool)
    return Corpus(ids, ids, tokens, trained, offsets, np.array(lengths, dtype=np.int64), short, None, None)


def _run(**over: Any) -> Run:
    train = {
        "global_batch": 8,
        "micro_batch": 1,
        **{k: over.pop(k) for k in ("epochs", "steps") if k in over},
    }
    weights = over.pop("weights", (1.0,))
    data = {"train": [{"path": "x", "weight": w} for w in weights], "max_length": 32, **over}
    return Run.model_validate({"output": "x", "model": {"path": "x"}, "data": data, "train": train})


def _loader(corpora: list[Corpus], run: Run, rank: int = 0, world: int = 1, micro: int = 1) -> Loader:
    return Loader(corpora, run, Share(rank, world, run.train.global_batch, micro), pad_id=0)


lengths_of = st.lists(st.integers(2, 32), min_size=1, max_size=60)


@settings(deadline=None, max_examples=40)
@given(lengths_of, st.booleans())
def test_every_token_is_seen_once_an_epoch_and_positions_restart(lengths: list[int], joined: bool) -> None:
    loader = _loader([_corpus(lengths)], _run(packing=not joined), micro=4 if joined else 1)
    loader.joined = joined
    seen: Counter[str] = Counter()
    for step in range(loader.steps):
        for batch in loader.micro_batches(step):
            seen.update(batch.sample_ids)
            _check_row_layout(batch, lengths)
    assert seen == {f"s{row}": 1 for row in range(len(lengths))}


def _check_row_layout(batch: Batch, lengths: list[int]) -> None:
    """Each segment counts from 0, holds one whole sample, and its first token is no target; the tail is padding."""
    at, ids = 0, batch.input_ids[0].tolist()
    for name in batch.sample_ids:
        row, length = int(name[1:]), lengths[int(name[1:])]
        assert ids[at : at + length] == [1000 * row + n for n in range(length)]
        assert batch.position_ids[0, at : at + length].tolist() == list(range(length))
        assert batch.labels[0, at : at + length].tolist() == [IGNORED, *ids[at + 1 : at + length]]
        at += length
    assert batch.labels[0, at:].eq(IGNORED).all()
    assert batch.position_ids[0, at:].tolist() == list(range(len(ids) - at))
    assert len(ids) % 8 == 0 and len(ids) - at < 8 or not batch.sample_ids
    assert len(ids) <= 32 * max(1, len(batch.sample_ids))
    ends = [0, *itertools.accumulate(lengths[int(name[1:])] for name in batch.sample_ids)]
    assert batch.samples == (tuple(itertools.pairwise(ends)),)


@settings(deadline=None, max_examples=25)
@given(lengths_of, lengths_of, st.sampled_from([0.5, 1.0, 1.7]), st.integers(0, 40))
def test_ranks_of_any_world_train_the_same_rows_in_the_same_order(
    first: list[int], second: list[int], weight: float, step: int
) -> None:
    corpora, run = [_corpus(first), _corpus(second, "t")], _run(weights=(1.0, weight), epochs=4.0)
    alone = _rows(_loader(corpora, run).micro_batches(step))
    for world in (2, 4):
        for micro in (1, 2):
            parts = [_loader(corpora, run, rank, world, micro).micro_batches(step) for rank in range(world)]
            assert {len(part) for part in parts} == {8 // world // micro}
            assert [row for part in parts for row in _rows(part)] == alone


@settings(deadline=None, max_examples=25)
@given(lengths_of, st.sampled_from([2, 3, 4]), st.integers(1, 2), st.booleans())
def test_parts_of_shared_rows_are_the_rows_and_train_each_token_once(
    lengths: list[int], sequence: int, micro: int, packing: bool
) -> None:
    corpora, run = [_corpus(lengths)], _run(packing=packing, max_length=35)
    whole = _loader(corpora, run, micro=micro).micro_batches(0)
    for group in range(2):
        shares = [Share(group * sequence + at, 2 * sequence, 8, micro, sequence) for at in range(sequence)]
        parts = [Loader(corpora, run, share, pad_id=0).micro_batches(0) for share in shares]
        for number, mine in enumerate(zip(*parts, strict=True)):
            _check_parts(mine, whole[group * len(parts[0]) + number])


def _check_parts(parts: tuple[Batch, ...], whole: Batch) -> None:
    length = whole.input_ids.shape[1]
    for name in ("input_ids", "position_ids"):
        joined = torch.cat([getattr(part, name) for part in parts], dim=1)
        assert torch.equal(joined[:, :length], getattr(whole, name)) and joined.shape[1] - length < len(parts)
    targets = torch.cat([part.labels[:, 1:] for part in parts], dim=1)
    assert torch.equal(targets[:, : length - 1], whole.labels[:, 1:])
    assert targets[:, length - 1 :].eq(IGNORED).all()
    assert len({part.input_ids.shape for part in parts}) == 1
    assert all(part.samples == parts[0].samples for part in parts)
    assert sum(part.trained_tokens for part in parts) == whole.trained_tokens
    assert sum(part.tokens for part in parts) == whole.tokens


def _rows(batches: list[Batch]) -> list[tuple[list[int], list[int]]]:
    """Rows without their padding: (tokens, labels)."""
    rows = []
    for batch in batches:
        for ids, labels, positions in zip(batch.input_ids, batch.labels, batch.position_ids, strict=True):
            tail = int(positions.eq(0).nonzero()[-1]) if labels[-1] == IGNORED else len(ids)
            rows.append((ids[:tail].tolist(), labels[:tail].tolist()))
    return rows


@settings(deadline=None, max_examples=25)
@given(
    lengths_of,
    st.sampled_from([(1.0,), (0.3,), (2.0,)]),
    st.lists(st.integers(0, 60), min_size=1, max_size=6),
)
def test_any_step_is_the_same_however_one_comes_to_it(
    lengths: list[int], weights: tuple[float], steps: list[int]
) -> None:
    run = _run(weights=weights, steps=100)
    used = _loader([_corpus(lengths)], run)
    for step in steps:
        fresh = _loader([_corpus(lengths)], run)
        for ours, theirs in zip(used.micro_batches(step), fresh.micro_batches(step), strict=True):
            assert torch.equal(ours.input_ids, theirs.input_ids) and torch.equal(ours.labels, theirs.labels)
            assert ours.sample_ids == theirs.sample_ids


def test_steps_reach_from_one_epoch_into_the_next_and_only_the_last_is_filled_up() -> None:
    loader = _loader([_corpus([32] * 10)], _run(epochs=2.5))
    assert (loader.rows_per_epoch, loader.steps_per_epoch, loader.steps) == (10, 2, 4)
    rows = [len(batch.sample_ids) for step in range(4) for batch in loader.micro_batches(step)]
    assert rows == [1] * 25 + [0] * 7
    assert loader.epoch_at(1) == 0.8 and loader.epoch_at(2) == 1.6
    empty = loader.micro_batches(3)[-1]
    assert empty.trained_tokens == 0 and empty.input_ids.shape == (1, 8)
    shown = [batch.sample_ids[0] for step in range(3) for batch in loader.micro_batches(step)]
    assert sorted(shown[:10]) == sorted(shown[10:20]) and shown[:10] != shown[10:20]


def test_a_number_of_steps_outlasts_the_epochs() -> None:
    loader = _loader([_corpus([32] * 3)], _run(steps=50))
    assert loader.steps == 50 and all(batch.trained_tokens for batch in loader.micro_batches(49))


def test_fractional_weights_over_packed_rows_keep_the_stream_without_gaps() -> None:
    drawn = np.random.default_rng(0).integers(2, 30, 101).tolist()
    loader = _loader([_corpus(drawn)], _run(weights=(0.37,), epochs=6.0))
    names = [
        name for step in range(loader.steps) for b in loader.micro_batches(step) for name in b.sample_ids
    ]
    assert len(names) == 6 * round(101 * 0.37)
    # 37 rows an epoch of 101: the third epoch begins the second pass.
    assert len(set(names[: 2 * 37])) == 74


def test_rows_that_do_not_divide_are_refused_with_the_numbers_that_do() -> None:
    with pytest.raises(WishError, match=r"global_batch 100 .* 3 ranks x micro-batch 8: use 96 or 120"):
        Share(0, 3, 100, 8)
    with pytest.raises(WishError, match=r"global_batch 100 .* 3 groups of 2 ranks x micro-batch 8"):
        Share(0, 6, 100, 8, 2)


def test_a_row_is_no_longer_than_max_length_even_where_eight_does_not_divide_it() -> None:
    sample = Encoded("a", np.arange(13, dtype=np.int32), np.ones(13, dtype=bool))
    assert build([[sample]], pad_id=0, max_length=13).input_ids.shape == (1, 13)
    assert build([[sample]], pad_id=0, max_length=99).input_ids.shape == (1, 16)


def test_a_step_is_cheap_to_build() -> None:
    import time

    loader = _loader([_corpus([24] * 20_000)], _run(max_length=1024))
    loader.micro_batches(0)
    start = time.process_time()
    for step in range(20):
        loader.micro_batches(step)
    assert (time.process_time() - start) / 20 < 0.05


def _loss(model: Any, batches: list[Batch]) -> float:
    """Sum of token losses over the number of trained tokens, as the loop computes it."""
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in batches:
            logits = model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False).logits
            flat = logits[:, :-1].reshape(-1, logits.shape[-1]).double()
            targets = batch.labels[:, 1:].reshape(-1)
            total += float(
                torch.nn.functional.cross_entropy(flat, targets, ignore_index=IGNORED, reduction="sum")
            )
            count += batch.trained_tokens
    return total / count


def test_no_layout_changes_the_loss_of_a_real_model(
    chatml: Any, tmp_path: Path, write: Callable[..., str], make_run: Callable[..., Run]
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    model = LlamaForCausalLM(config).eval()
    path = write(
        [
            {"prompt": f"def f{n}(a):\n" * (n % 5 + 1), "completion": "    return a\n" * (n % 3 + 1)}
            for n in range(24)
        ]
    )
    losses = []
    cuts = (
        (True, 1, 1, False),
        (True, 4, 1, False),
        (True, 2, 2, True),
        (False, 1, 1, False),
        (False, 4, 2, False),
    )
    for packing, micro, world, joined in (*cuts, (False, 4, 2, True), (False, 8, 1, True)):
        run = make_run(path, packing=packing, train={"global_batch": 24, "micro_batch": micro, "epochs": 1})
        ranks = [prepare(run, chatml, rank=rank, world_size=world).train for rank in range(world)]
        for rank in ranks:
            rank.joined = joined
        losses.append(
            _loss(model, [b for rank in ranks for s in range(rank.steps) for b in rank.micro_batches(s)])
        )
    assert max(losses) - min(losses) < 1e-5


@settings(deadline=None, max_examples=40)
@given(lengths_of, st.booleans(), st.integers(1, 4), st.sampled_from([0.5, 1.0]), st.booleans())
@example([2, 5, 2], True, 1, 0.5, False)  # the first epoch packs shorter rows than the second
@example([2, 9, 2], True, 1, 0.5, False)  # a later epoch has the longest twice, from two passes
@example([3, 3, 2], False, 4, 1.0, False)  # a micro-batch has the longest of two epochs
@example([2, 9, 8, 2], False, 2, 0.5, True)  # a later epoch has two long ones, the first has one
def test_no_micro_batch_of_the_stream_exceeds_the_largest(
    lengths: list[int], packing: bool, micro: int, weight: float, joined: bool
) -> None:
    corpora = [_corpus(lengths)]
    run = _run(packing=packing, weights=(weight,), epochs=3)
    run = run.model_copy(update={"train": run.train.model_copy(update={"global_batch": micro})})
    loader = _loader(corpora, run, micro=micro)
    loader.joined = joined
    largest = loader.largest()
    assert (
        largest.input_ids.shape[0] == (1 if joined else micro)
        and largest.input_ids.max() <= corpora[0].tokens.max()
    )
    pieces = int((largest.position_ids[:, 1:] == 0).sum()) + micro
    for step in range(loader.steps):
        for batch in loader.micro_batches(step):
            assert batch.input_ids.shape[1] <= largest.input_ids.shape[1]
            if weight == 1.0:
                assert batch.tokens <= largest.tokens
                # A sample's first token is trained nowhere, wherever the rows are cut.
                assert batch.trained_tokens <= largest.trained_tokens + pieces
