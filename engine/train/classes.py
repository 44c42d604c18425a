"""Validation of a head of classes: loss, accuracy and F1 from one count of what was said for what is true."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from engine.data import IGNORED, Batch
from engine.train.assemble import Job


@torch.no_grad()
def validate_classes(job: Job) -> dict[str, float]:
    """Loss per label, accuracy and macro F1 of the validation set, over all ranks (a collective)."""
    count = len(job.run.model.labels)
    total, confusion = 0.0, torch.zeros(count, count, dtype=torch.float64)
    job.engine.module.eval()
    for batch in job.validation:
        job.where.at("validate")
        loss, seen = _judge(job, batch, count)
        total += loss
        confusion += seen
    job.engine.module.train()
    total, *cells = job.world.sum([total, *confusion.flatten().tolist()])
    confusion = torch.tensor(cells, dtype=torch.float64).reshape(count, count)
    accuracy, f1 = scores(confusion)
    return {
        "validation_loss": total / max(1.0, float(confusion.sum())),
        "validation_accuracy": accuracy,
        "validation_f1": f1,
    }


def scores(confusion: Tensor) -> tuple[float, float]:
    """Accuracy and macro F1 of counts [true, said].

    F1 of a class is the harmonic mean of its precision and recall, 2 hits / (true + said); macro is the mean over the
    classes that were true or said at least once, as scikit-learn's `f1_score(average="macro")` has it, which the
    library evaluate calls for its `f1`.
    """
    hits, true, said = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    there = (true + said) > 0
    f1 = 2 * hits[there] / (true + said)[there]
    whole = float(confusion.sum())
    return float(hits.sum()) / max(1.0, whole), float(f1.mean()) if len(f1) else 0.0


def _judge(job: Job, batch: Batch, count: int) -> tuple[float, Tensor]:
    """Summed loss of a batch, and its counts [true, said]."""
    device = job.world.device
    with job.attention.spread(batch.samples):
        logits = job.engine.module(
            input_ids=batch.input_ids.to(device), position_ids=batch.position_ids.to(device), use_cache=False
        ).logits.float()
    targets = batch.labels[:, 1:].to(device)
    logits = logits[:, : targets.shape[1]]  # a batch without samples has no column of labels more
    kept = targets != IGNORED
    loss = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    pairs = targets[kept] * count + logits.argmax(-1)[kept]
    return float(loss), torch.bincount(pairs.cpu(), minlength=count * count).reshape(count, count).double()
