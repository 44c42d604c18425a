"""Fill-in-the-middle: sentinels per family, nothing lost in the cut, and random choices keyed by sample and pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import Run
from engine.data import fim, prepare
from engine.data.batch import Encoded
from engine.errors import WishError

TEXT = "def add(first, second):\n    total = first + second\n    return total\n"
FAMILIES = {"chatml": "qwen", "starcoder": "starcoder", "codellama": "codellama"}


@given(st.text(max_size=40), st.integers(0, 99), st.integers(0, 9), st.text(max_size=5))
def test_the_three_parts_are_the_text(text: str, seed: int, seen: int, sample_id: str) -> None:
    at = fim.borders(seed, seen, sample_id, len(text))
    cut = fim.cut(text, "psm", at)
    assert cut.prefix + cut.middle + cut.suffix == text
    assert 0 <= at[0] <= at[1] <= len(text)


@pytest.mark.parametrize(("name", "family"), FAMILIES.items())
def test_sentinels_are_found_by_family(name: str, family: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(name)
    found = fim.sentinels(tokenizer)
    assert found.family == family
    names = tokenizer.convert_ids_to_tokens([found.prefix, found.suffix, found.middle])
    assert tuple(names) == fim.FAMILIES[family][:3]
    assert found.end == (
        tokenizer.convert_tokens_to_ids("▁<EOT>") if family == "codellama" else tokenizer.eos_token_id
    )


def test_a_tokenizer_without_sentinels_is_refused_with_the_ways_out(llama3: Any) -> None:
    with pytest.raises(WishError, match=r"no fill-in-the-middle tokens.*data\.fim\.rate: 0"):
        fim.sentinels(llama3)


def _parts(sample: Encoded, tokens: fim.Sentinels, opening: int) -> tuple[str, list[list[int]]]:
    """Layout of a cut sample and its token ids between the sentinels."""
    ids = sample.ids.tolist()[opening:]
    assert ids[0] == tokens.prefix and ids[-1] == tokens.end
    hole, middle = ids.index(tokens.suffix), ids.index(tokens.middle)
    assert hole < middle
    return ("spm" if hole == 1 else "psm"), [ids[1:hole], ids[hole + 1 : middle], ids[middle + 1 : -1]]


@pytest.mark.parametrize("name", ["chatml", "starcoder"])
@pytest.mark.parametrize("spm_rate", [0.0, 1.0])
def test_cut_samples_decode_to_the_text(
    name: str,
    spm_rate: float,
    request: pytest.FixtureRequest,
    write: Callable[..., str],
    make_run: Callable[..., Run],
) -> None:
    tokenizer = request.getfixturevalue(name)
    rows = [{"code": f"# {n}\n{TEXT}"} for n in range(20)]
    run = make_run(write(rows), fim={"rate": 1.0, "spm_rate": spm_rate})
    prepared = prepare(run, tokenizer)
    tokens, corpus = fim.sentinels(tokenizer), prepared.corpora[0]
    for row in range(20):
        sample = corpus.sample(row, seen=0)
        layout, (first, second, third) = _parts(sample, tokens, 0)
        assert layout == ("spm" if spm_rate else "psm")
        assert len(sample) <= corpus.lengths[row] and sample.trained[1:].all()
        decode = tokenizer.decode
        if layout == "psm":
            whole = decode(first) + decode(third) + decode(second)
        else:
            whole = decode(third) + decode(second)
        assert whole == rows[row]["code"]


def test_rates_are_kept_and_choices_change_with_each_pass(
    chatml: Any, write: Callable[..., str], make_run: Callable[..., Run]
) -> None:
    rows = [{"code": f"# {n}\n{TEXT}"} for n in range(400)]
    corpus = prepare(make_run(write(rows), fim={"rate": 0.6, "spm_rate": 0.25}), chatml).corpora[0]
    tokens = fim.sentinels(chatml)
    layouts: Counter[str] = Counter()
    for row in range(400):
        sample = corpus.sample(row, seen=0)
        layouts[_parts(sample, tokens, 0)[0] if sample.ids[0] == tokens.prefix else "none"] += 1
    assert abs(layouts["none"] - 160) < 40 and abs(layouts["spm"] - 60) < 30
    assert np.array_equal(corpus.sample(5, seen=1).ids, corpus.sample(5, seen=1).ids)
    assert len({tuple(corpus.sample(5, seen=seen).ids) for seen in range(8)}) > 4


def test_validation_and_rows_near_the_limit_stay_within_it(
    chatml: Any, write: Callable[..., str], make_run: Callable[..., Run]
) -> None:
    path = write([{"code": f"# {n}\n{TEXT}"} for n in range(10)])
    longest = int(max(prepare(make_run(path, fim={"rate": 0.0}), chatml).corpora[0].lengths))
    tight = prepare(make_run(path, max_length=longest, fim={"rate": 1.0}), chatml)
    assert all(len(tight.corpora[0].sample(row, 0)) <= longest for row in range(10))
    cut = prepare(make_run(path, max_length=longest // 2, overlong="truncate", fim={"rate": 1.0}), chatml)
    tokens = fim.sentinels(chatml)
    for row in range(10):
        sample = cut.corpora[0].sample(row, 0)
        assert len(sample) <= longest // 2 and sample.ids[0] == tokens.prefix


def test_rate_zero_needs_no_sentinels(
    llama3: Any, write: Callable[..., str], make_run: Callable[..., Run]
) -> None:
    prepared = prepare(make_run(write([{"code": TEXT}]), fim={"rate": 0.0}), llama3)
    assert prepared.facts["fim"] is None
