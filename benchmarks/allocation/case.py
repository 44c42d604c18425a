"""What is measured: a tiny model of a family, a method, a strategy, and a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import Run
from launch import activations
from launch.architecture import architecture
from launch.memory import Memory, estimate
from launch.states import Buckets, job

REDUCE, GATHERED, PREFETCHED = 100_000, 150_000, 10_000
"""Elements of DeepSpeed's buckets: its usual ones would be a hundred times the size of these models."""
CHUNK = 1 << 16
"""Logits in a chunk of the loss, likewise: 64 positions of these models' vocabulary."""
SHAPE = {
    "vocab_size": 1024,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True, slots=True)
class Case:
    """One run of the benchmark."""

    strategy: str
    kind: str = "full"
    family: str = "llama"
    precision: str = "bf16"
    rows: int = 2
    length: int = 64
    accumulation: int = 1
    checkpointing: bool = False
    offload: int = 0
    dropout: float = 0.0
    attention: str = "auto"
    optimizer: str = "adamw"
    chunked: bool = True
    sequence: int = 1

    @property
    def ranks(self) -> int:
        """Real processes."""
        return 1 if self.strategy == "none" else 2

    @property
    def tracked(self) -> bool:
        """Whether MemTracker can follow it: it cannot follow DeepSpeed's engine."""
        return not self.strategy.startswith("zero")

    @property
    def name(self) -> str:
        """Short, for the table."""
        parts = [self.family, self.kind, self.precision, f"{self.rows} x {self.length}"]
        parts += [f"{self.accumulation} micro-batches"] if self.accumulation > 1 else []
        parts += ["checkpointing"] if self.checkpointing else []
        parts += [f"dropout {self.dropout}"] if self.dropout else []
        parts += [self.attention] if self.attention != "auto" else []
        parts += [self.optimizer] if self.optimizer != "adamw" else []
        parts += ["loss from logits"] if not self.chunked else []
        parts += [f"{self.sequence} ranks a row"] if self.sequence > 1 else []
        parts += [("", "optimizer offloaded", "all offloaded")[self.offload]] if self.offload else []
        return ", ".join(parts)

    def run(self, models: Path) -> Run:
        """The case as a Run over a model folder below `models`."""
        tree: dict[str, Any] = {
            "output": "runs/plan-memory",
            "model": {
                "path": str(models / self.family),
                "activation_checkpointing": self.checkpointing,
                "attention": self.attention,
            },
            "adapter": {"kind": self.kind, "rank": 8, "dropout": self.dropout},
            "data": {"train": [{"path": "rows.jsonl"}], "max_length": self.length},
            "train": {
                "steps": 3,
                "global_batch": self.rows * self.ranks // self.sequence * self.accumulation,
                "micro_batch": self.rows,
                "optimizer": self.optimizer,
                "chunked_loss": self.chunked,
            },
            "parallel": {
                "strategy": self.strategy,
                "processes": self.ranks,
                "device": "cpu",
                "precision": self.precision,
                "threads": 1,
                "offload_optimizer": self.offload > 0,
                "offload_parameters": self.offload > 1,
                "sequence": self.sequence,
            },
        }
        return Run.model_validate(tree)

    def predicted(self, models: Path) -> Memory:
        """What the plan says, with this benchmark's buckets and chunks."""
        activations.CHUNK["cpu"] = CHUNK
        run = self.run(models)
        buckets = Buckets(REDUCE, GATHERED, PREFETCHED, False) if not self.tracked else None
        return estimate(job(run, architecture(run), cpu=True, buckets=buckets))


def cases() -> Iterator[Case]:
    """Every strategy with every method, and each setting that changes what is held."""
    for strategy in ("none", "ddp", "zero1", "zero2", "zero3", "fsdp2"):
        for kind in ("full", "lora", "qlora"):
            if (strategy, kind) != ("fsdp2", "qlora"):
                yield Case(strategy, kind)
                yield Case(strategy, kind, rows=4, length=128)
        yield Case(strategy, accumulation=2)
        yield Case(strategy, precision="fp32")
        yield Case(strategy, checkpointing=True, length=256)
    for family in ("qwen2", "qwen3", "starcoder2", "mistral"):
        yield Case("none", family=family)
        yield Case("none", "lora", family=family, length=128)
    yield Case("none", "lora", dropout=0.05)
    yield Case("none", optimizer="adamw_8bit")
    yield Case("none", optimizer="lion")
    yield Case("zero2", optimizer="lion")
    yield Case("none", optimizer="lion_8bit")
    for kind in ("full", "lora"):
        yield Case("none", kind, optimizer="muon")
    yield Case("none", rows=1)
    for strategy in ("none", "ddp", "zero2", "zero3", "fsdp2"):
        for kind in ("full", "lora"):
            yield Case(strategy, kind, chunked=False)
    for strategy, offload in (("zero1", 1), ("zero2", 1), ("zero3", 1), ("zero3", 2)):
        yield Case(strategy, offload=offload)
    for strategy in ("ddp", "zero2", "zero3", "fsdp2"):
        yield Case(strategy, length=256, sequence=2)
        yield Case(strategy, "lora", rows=1, length=1024, checkpointing=True, sequence=2)


def unseen() -> Iterator[Case]:
    """Cases that were first measured once the formulas stood, and so told how far these reached beyond `cases`."""
    yield Case("zero2", "lora", family="qwen2", rows=3, length=96, accumulation=2)
    yield Case("zero3", family="qwen3", rows=1, length=192)
    yield Case("zero3", "qlora", family="mistral", rows=2, length=160, checkpointing=True)
    yield Case("fsdp2", family="starcoder2", rows=3, length=80)
    yield Case("fsdp2", "lora", family="qwen3", length=224, checkpointing=True)
    yield Case("ddp", "lora", family="starcoder2", rows=1, length=200, precision="fp32")
    yield Case("zero1", family="qwen2", rows=5, length=72)
    yield Case("zero2", "qlora", rows=1, length=320, dropout=0.1)
    yield Case("zero3", "lora", length=128, offload=1)
    yield Case("zero2", rows=1, length=48, accumulation=3, offload=1)
    yield Case("none", length=192, attention="eager")
    yield Case("none", "lora", length=192, attention="eager")
    yield Case("none", optimizer="adafactor")
    yield Case("none", family="gpt2", length=128)
    yield Case("none", family="mixtral", length=128)
    yield Case("none", "lora", family="mixtral", length=128)
    yield Case("none", family="qwen3_moe", length=128)
    yield Case("zero3", family="qwen3_moe", length=128)
