"""Accuracy and F1 from counts, against the definition on lists of answers."""

from __future__ import annotations

import random

import pytest
import torch

from engine.train.classes import scores


def by_definition(pairs: list[tuple[int, int]]) -> tuple[float, float]:
    each = []
    for name in {label for pair in pairs for label in pair}:
        hits = sum(true == said == name for true, said in pairs)
        said = sum(one == name for _, one in pairs)
        true = sum(one == name for one, _ in pairs)
        precision, recall = hits / said if said else 0.0, hits / true if true else 0.0
        each.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    return sum(true == said for true, said in pairs) / len(pairs), sum(each) / len(each)


@pytest.mark.parametrize("seed", range(8))
def test_scores_are_those_of_the_definition(seed: int) -> None:
    draw = random.Random(seed)
    count = draw.randint(2, 6)
    pairs = [(draw.randrange(count), draw.randrange(max(1, count - 1))) for _ in range(draw.randint(1, 40))]
    confusion = torch.zeros(count + 2, count + 2, dtype=torch.float64)
    for true, said in pairs:
        confusion[true, said] += 1
    assert scores(confusion) == pytest.approx(by_definition(pairs))


def test_nothing_to_score_is_no_error() -> None:
    assert scores(torch.zeros(3, 3, dtype=torch.float64)) == (0.0, 0.0)
