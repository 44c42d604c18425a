"""Classifiers on real ranks: they learn, do not depend on how they are cut, and transformers says what they say."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

pytestmark = pytest.mark.dist

SLOW = pytest.mark.slow
LABELS = {"sequence": ["minus", "plus"], "token": ["other", "number"]}


def rows(head: str) -> list[dict[str, Any]]:
    draw = random.Random(0)
    found = []
    for n in range(200):
        sign, number = draw.choice("+-"), str(draw.randint(10, 99))
        text = f"def f{n}(x):\n    return x {sign} {number}\n"
        at = text.rindex(number)
        of_text = {"text": text, "label": "plus" if sign == "+" else "minus"}
        found.append(of_text if head == "sequence" else {"text": text, "spans": [[at, at + 2, "number"]]})
    return found


def sections(folder: Path, head: str, strategy: str, kind: str, **train: Any) -> dict[str, dict[str, Any]]:
    file = folder / f"{head}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows(head)))
    return {
        "model": {"head": head, "labels": LABELS[head]},
        "adapter": {"kind": kind},
        "data": {"train": [{"path": str(file)}], "validation_fraction": 0.2, "max_length": 64},
        "train": {"steps": 30, "global_batch": 8, "learning_rate": 3e-3 if kind == "full" else 1e-2, **train},
        "checkpoint": {"metric": "validation_f1"},
        "parallel": {
            "device": "cpu",
            "threads": 1,
            "strategy": strategy,
            "processes": 1 if strategy == "none" else 2,
        },
    }


def measured(lines: list[dict[str, Any]]) -> dict[str, float]:
    return next(line for line in reversed(lines) if "validation_f1" in line)


@torch.no_grad()
def answers(run: Path, base: Path, head: str, kind: str, texts: list[str]) -> tuple[list[Any], Any]:
    """What transformers' own class says, one padded batch at a time."""
    auto = AutoModelForSequenceClassification if head == "sequence" else AutoModelForTokenClassification
    if kind == "full":
        model, where = auto.from_pretrained(run / "model"), run / "model"
    else:
        from peft import PeftModel

        names = dict(enumerate(LABELS[head]))
        plain = auto.from_pretrained(base, num_labels=2, id2label=names, pad_token_id=1, dtype=torch.bfloat16)
        model, where = PeftModel.from_pretrained(plain, run / "adapter"), run / "adapter"
    tokenizer = AutoTokenizer.from_pretrained(where)
    model.eval()
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits.argmax(-1).tolist(), batch


@pytest.mark.parametrize(
    ("head", "strategy", "kind"),
    [
        pytest.param("sequence", "zero2", "full", id="sequence-zero2"),
        pytest.param("token", "none", "lora", id="token-lora"),
        pytest.param("sequence", "zero3", "full", id="sequence-zero3", marks=SLOW),
        pytest.param("sequence", "fsdp2", "full", id="sequence-fsdp2", marks=SLOW),
        pytest.param("sequence", "zero2", "qlora", id="sequence-qlora", marks=SLOW),
        pytest.param("token", "zero1", "lora", id="token-zero1-lora", marks=SLOW),
        pytest.param("token", "zero3", "full", id="token-zero3", marks=SLOW),
    ],
)
def test_a_classifier_learns_and_says_the_same_in_transformers(
    head: str, strategy: str, kind: str, wish: Callable[..., Path], launch: Callable, small: Path, tmp_path: Path
) -> None:
    ended = launch(wish("run", **sections(tmp_path, head, strategy, kind)))
    assert ended.exit_code == 0, ended.output
    if strategy.startswith("zero"):
        assert ended.facts["strategy"].startswith(f"ZeRO-{strategy[-1]} over 2 ranks")
    found = measured(ended.lines)
    assert found["validation_accuracy"] > (0.9 if kind != "qlora" else 0.75), found
    assert 0.4 < found["validation_f1"] <= 1 and found["validation_loss"] < 0.6
    texts = [row["text"] for row in rows(head)][:24]
    said, batch = answers(ended.folder, small / "model", head, kind, texts)
    if head == "sequence":
        true = [LABELS[head].index(row["label"]) for row in rows(head)][:24]
        right = sum(a == b for a, b in zip(said, true, strict=True)) / len(true)
        assert right >= found["validation_accuracy"] - 0.15
    else:
        kept = batch["attention_mask"].bool()
        assert torch.tensor(said)[kept].float().mean() == pytest.approx(2 / int(kept[0].sum()), abs=0.1)


@pytest.mark.slow
def test_how_a_step_is_cut_changes_no_loss_and_a_resume_is_exact(
    wish: Callable[..., Path], launch: Callable, tmp_path: Path
) -> None:
    def made(strategy: str, **train: Any) -> dict[str, dict[str, Any]]:
        found = sections(tmp_path, "sequence", strategy, "full", schedule="constant", **({"steps": 6} | train))
        found["parallel"]["precision"] = "fp32"
        return found

    one = launch(wish("one", **made("none", micro_batch=8)))
    two = launch(wish("two", **made("zero3", micro_batch=2)))
    assert two.facts["strategy"].startswith("ZeRO-3 over 2 ranks")
    assert two.losses == pytest.approx(one.losses, rel=1e-4)
    loose = launch(wish("loose", **made("ddp", micro_batch=1) | {"data": made("ddp")["data"] | {"packing": True}}))
    assert loose.losses == pytest.approx(one.losses, rel=1e-4)
    assert launch(wish("cut", **made("zero3", steps=3))).exit_code == 0
    again = launch(wish("cut", **made("zero3")))
    assert "resumed at step 3" in again.output, again.output
    whole = launch(wish("whole", **made("zero3")))
    assert again.losses == whole.losses
