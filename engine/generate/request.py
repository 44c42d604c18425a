"""What is asked of a model and what it answered: plain values, whoever generates."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn; names as in vLLM and the OpenAI API."""

    temperature: float = 0.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    max_new_tokens: int = 512
    stop: tuple[str, ...] = ()
    """Texts that end an answer; looked for in the new text only."""


@dataclass(frozen=True, slots=True)
class Request:
    """One answer wanted: sample number `sample` of a task."""

    task_id: str
    sample: int
    prompt: str
    seed: int
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer: `raw` is the new text as decoded, `text` the same cut at the first stop."""

    task_id: str
    sample: int
    seed: int
    text: str
    raw: str
    tokens: int
    finish: Literal["stop", "length"]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Generation:
        """The answer that a journal's record holds."""
        return cls(**{name: record[name] for name in cls.__dataclass_fields__})


def sample_seed(run_seed: int, task_id: str, sample: int) -> int:
    """Seed of one sample: a function of what it is, not of who draws it: any world size draws the same set.

    Returns:
        A whole number in [0, 2**63), which every generator of random numbers takes.
    """
    name = f"sample\0{run_seed}\0{task_id}\0{sample}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1
