"""The `train` section of a Run: how long, how fast, and how often the loop looks up."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from engine.config.sections import Fraction, NonNegative, Positive, PositiveFloat, Section

Optimizer = Literal[
    "adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adafactor",
    "lion", "lion_8bit", "paged_lion", "paged_lion_8bit", "muon",
]  # fmt: skip


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    return text


class Train(Section):
    """The loop: how long, how fast, and how often it looks up."""

    steps: Positive | None = None
    """Optimizer steps; empty: `epochs` decides."""
    epochs: PositiveFloat = 1.0
    """Passes over the training rows, when `steps` is empty."""
    global_batch: Positive = 8
    """Rows in one optimizer step, over all ranks and micro-batches."""
    micro_batch: Positive = 1
    """Rows one rank works on at a time: the memory lever; it does not change the result."""
    optimizer: Optimizer = "adamw"
    """`adamw` is torch's fused AdamW where it exists; the 8-bit and paged ones, and Lion (arXiv 2302.06675), are
    bitsandbytes'."""
    learning_rate: PositiveFloat = 2e-5
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """Decoupled weight decay, on matrices only (not on norms and biases)."""
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Decay of Adam's first moment; with Lion, the old momentum's share in a step."""
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.95
    """Decay of Adam's second moment; 0.95 is the usual value for language models. Decay of Lion's momentum, for which
    its paper has 0.99."""
    epsilon: PositiveFloat = 1e-8
    """Adam's denominator guard."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """The learning rate of each decoder layer as a share of the next one's (arXiv 2003.10555); the embedding's is the
    smallest, the head's and the last norm's stay whole. 1 turns it off."""
    learning_rate_factors: dict[
        Annotated[str, Field(min_length=1), AfterValidator(_pattern)], Annotated[float, Field(ge=0.0, le=1e6)]
    ] = {}
    """Factors on the learning rate by a regular expression found in a weight's name, e.g. `{embed_tokens: 0.1}`; all
    that match are multiplied. 0 holds a weight still."""
    schedule: Literal["cosine", "linear", "constant", "wsd", "range"] = "cosine"
    """Shape of the learning rate after warmup; `wsd` holds it and decays over the last `decay_fraction` of steps;
    `range` rises by equal factors from `min_learning_rate_ratio` of the peak to the peak (`temper lr`)."""
    warmup_steps: NonNegative = 0
    """Steps of linear warmup; wins over `warmup_fraction` when not 0."""
    warmup_fraction: Fraction = 0.0
    """Share of all steps used for linear warmup."""
    decay_fraction: Fraction = 0.2
    """Share of all steps in which `wsd` decays."""
    min_learning_rate_ratio: Fraction = 0.0
    """Learning rate at the end, as a share of the peak; of `range`, at the beginning."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of each target spread evenly over the vocabulary (arXiv 1512.00567), in training; validation is plain."""
    neftune_alpha: Annotated[float, Field(ge=0.0, le=1e4)] = 0.0
    """Noise on the input embeddings in training (NEFTune, arXiv 2310.05914, which tries 5, 10 and 15); 0 turns it off.
    A sample's noise depends on the seed, the step and the sample, not on how the step is cut."""
    adversarial_epsilon: Annotated[float, Field(ge=0.0, le=1e4)] = 0.0
    """Train on each sample once more with its embeddings moved this far along the gradient of its loss, and add that
    loss (FGM, arXiv 1605.07725). 0 turns it off; else a step takes twice as long."""
    non_finite: Literal["stop", "skip"] = "stop"
    """What a step without finite gradients does: `stop` the run, or leave the weights alone and go on (`skip`; ten such
    steps on end stop it). Its samples are named either way."""
    clip_norm: Annotated[float, Field(ge=0.0)] = 1.0
    """Largest gradient norm, over all parameters and ranks; 0 turns clipping off."""
    chunked_loss: bool = True
    """Compute the loss in the output head, a chunk of trained positions at a time, where the model allows it: full
    logits then never exist. False: from logits of the columns that are trained."""
    log_every: Positive = 1
    """Steps between two records in metrics.jsonl."""
    validate_every: NonNegative = 0
    """Steps between validation losses; 0: only at the end, if there is a validation set."""
    evaluate_every: NonNegative = 0
    """Steps between in-loop evaluations (generate, execute, pass@k); 0 turns them off. Under zero3 and fsdp2 each rank
    holds a whole copy of the model for it."""
    early_stop_patience: NonNegative = 0
    """Stop after this many measurements of `checkpoint.metric` without improvement; 0 turns it off."""
    deterministic: bool = True
    """Ask torch for deterministic algorithms, so that a resumed run has the same loss bits."""
    rehearse: Literal["auto", "always", "never"] = "auto"
    """Run the worst case once before step 1 (largest micro-batch, optimizer step, in-loop generation, save): what would
    run out of memory or disk later ends at once, and nothing of it stays. `auto`: on CUDA."""
