"""Classes of texts and of characters become labels at the right tokens, packed or not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.config import Run
from engine.data import IGNORED, prepare
from engine.errors import WishError

LABELS = ["no", "yes"]
TEXTS = [{"text": f"def f{n}(values):\n    return values[{n}]\n", "label": LABELS[n % 2]} for n in range(12)]


def run(folder: Path, rows: list[dict[str, Any]], head: str, **data: Any) -> Run:
    file = folder / f"{head}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Run.model_validate(
        {
            "output": str(folder / "out"),
            "model": {"path": "none", "head": head, "labels": LABELS},
            "data": {"train": [{"path": str(file)}], "max_length": 128, "cache": "none", **data},
            "train": {"global_batch": 2, "micro_batch": 1},
        }
    )


def asked(prepared: Any) -> list[tuple[int, int]]:
    """(token, class) of every label of the first epoch, in order."""
    found = []
    for step in range(prepared.train.steps):
        for batch in prepared.train.micro_batches(step):
            assert batch.labels.shape[1] == batch.input_ids.shape[1] + bool(batch.sample_ids)
            assert batch.trained_tokens == int((batch.labels != IGNORED).sum())
            kept = batch.labels[:, 1:] != IGNORED
            tokens = batch.input_ids[:, : kept.shape[1]]
            found += zip(tokens[kept].tolist(), batch.labels[:, 1:][kept].tolist(), strict=True)
    return found


@pytest.mark.parametrize("packing", [True, False])
def test_a_texts_class_is_asked_of_its_last_token(starcoder: Any, tmp_path: Path, packing: bool) -> None:
    prepared = prepare(run(tmp_path, TEXTS, "sequence", packing=packing), copy.deepcopy(starcoder))
    found = asked(prepared)
    lasts = {row["text"]: starcoder(row["text"])["input_ids"][-1] for row in TEXTS}
    assert sorted(found) == sorted((lasts[row["text"]], LABELS.index(row["label"])) for row in TEXTS)
    assert prepared.facts["sources"][0]["format"] == "labelled"


def test_a_text_that_is_cut_keeps_its_class(starcoder: Any, tmp_path: Path) -> None:
    wish = run(tmp_path, TEXTS, "sequence", max_length=8, overlong="truncate")
    found = asked(prepare(wish, copy.deepcopy(starcoder)))
    assert len(found) == 12 and [label for _, label in found].count(1) == 6


def test_characters_of_a_span_are_its_tokens(starcoder: Any, tmp_path: Path) -> None:
    text = "key = 'secret'\nother = 3\n"
    rows = [{"text": text, "spans": [[7, 13, "yes"]]}, {"text": text, "spans": []}]
    prepared = prepare(run(tmp_path, rows, "token"), copy.deepcopy(starcoder))
    found = asked(prepared)
    inside = starcoder(text, return_offsets_mapping=True)
    wanted = [
        (token, int(start < 13 and end > 7))
        for token, (start, end) in zip(inside["input_ids"], inside["offset_mapping"], strict=True)
    ]
    plain = [(token, 0) for token in inside["input_ids"]]
    assert sorted(found) == sorted(wanted + plain) and 0 < sum(label for _, label in found) < len(wanted)


@pytest.mark.parametrize(
    ("head", "row", "said"),
    [
        ("sequence", {"text": "x", "label": "maybe"}, "'maybe' is none of model.labels"),
        ("sequence", {"text": "x", "label": 2}, "2 is none of model.labels"),
        ("sequence", {"text": "x", "label": None}, "a label is 'None'"),
        ("sequence", {"text": "x", "label": True}, "a label is 'True'"),
        ("sequence", {"text": "", "label": "no"}, "the text has no token"),
        ("sequence", {"prompt": "x", "completion": "y"}, "fits no format"),
        ("token", {"text": "x", "spans": [[0, 2, "no"]]}, "of a text of 1 characters"),
        ("token", {"text": "xyz", "spans": [[0, 2, "no"], [1, 3, "yes"]]}, "share characters"),
        ("token", {"text": "xyz", "spans": [{"start": 0, "label": "no"}]}, "a span is"),
        ("token", {"text": "x", "label": "no"}, "fits no format"),
    ],
)
def test_what_cannot_be_learnt_is_told_with_its_place(
    starcoder: Any, tmp_path: Path, head: str, row: dict, said: str
) -> None:
    with pytest.raises(WishError, match=said):
        prepare(run(tmp_path, [row], head), copy.deepcopy(starcoder))


def test_numbers_are_classes_too(starcoder: Any, tmp_path: Path) -> None:
    rows = [{"text": row["text"], "label": LABELS.index(row["label"])} for row in TEXTS]
    by_number = asked(prepare(run(tmp_path, rows, "sequence"), copy.deepcopy(starcoder)))
    assert by_number == asked(prepare(run(tmp_path, TEXTS, "sequence"), copy.deepcopy(starcoder)))


def test_kept_classes_are_the_classes(starcoder: Any, tmp_path: Path, make_run: Callable[..., Run]) -> None:
    wish = run(tmp_path, TEXTS, "sequence", cache=str(tmp_path / "kept"))
    first, second = (prepare(wish, copy.deepcopy(starcoder)) for _ in range(2))
    plain = prepare(run(tmp_path, TEXTS, "sequence"), copy.deepcopy(starcoder))
    assert second.origin.startswith("kept in") and asked(first) == asked(second) == asked(plain)


def test_rows_with_a_label_still_train_language_models(starcoder: Any, tmp_path: Path) -> None:
    wish = run(tmp_path, TEXTS, "sequence")
    language = wish.model_copy(
        update={"model": wish.model.model_copy(update={"head": "language", "labels": ()})}
    )
    assert prepare(language, copy.deepcopy(starcoder)).facts["sources"][0]["format"] == "text"
