"""What would have to change for a run to fit: settings that leave its result alone, tried and ranked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import yaml

from engine.config import Run, check
from launch.architecture import Architecture
from launch.cost import pace
from launch.hardware import Cluster
from launch.memory import GIB, Memory, estimate
from launch.states import STATES, job

STRATEGIES = tuple(STATES)
METHODS = ("full", "lora", "qlora")


@dataclass(frozen=True, slots=True)
class Change:
    """A way to run: overrides (dotted key to value), what it needs, and how fast it would be (None: not estimated)."""

    overrides: tuple[tuple[str, Any], ...]
    memory: Memory
    tokens_per_second: float | None

    @property
    def words(self) -> str:
        """As options of the command line."""
        return " ".join(f"--set {key}={_plain(value)}" for key, value in self.overrides)

    @property
    def yaml(self) -> str:
        """As a part of a run file."""
        tree: dict[str, dict[str, Any]] = {}
        for key, value in self.overrides:
            section, _, name = key.partition(".")
            tree.setdefault(section, {})[name] = value
        return yaml.safe_dump(tree, sort_keys=False) if tree else ""


def fits(memory: Memory, cluster: Cluster, ranks: int) -> bool:
    """Whether a GPU, and the host where its size is known, hold what `ranks` of them need."""
    here = min(ranks, cluster.gpus_per_node)
    roomy = cluster.host_memory_gib is None or memory.host * here <= cluster.host_memory_gib * GIB
    return memory.total <= cluster.gpu.memory_gib * GIB and roomy


def search(run: Run, model: Architecture, cluster: Cluster) -> list[Change]:
    """Every way to run that fits and leaves the result as it is, the fastest first.

    Where no speed is estimated, the fewest changes come first.
    Tried: strategy, offload, rows at a time, activation checkpointing; and where none of these is enough, ranks that
    share rows. Global batch, length and precision stay.
    """
    found = list(_fitting(run, _variants(run), model, cluster))
    if not found:
        sizes = [size for size in range(2, run.parallel.processes + 1) if model.shape.heads % size == 0]
        shared = (_sharing(run, size) for size in sizes if size != run.parallel.sequence)
        found = list(_fitting(run, (one for each in shared for one in _variants(each)), model, cluster))
    return sorted(found, key=lambda change: (-(change.tokens_per_second or 0), len(change.overrides)))


def _fitting(run: Run, ways: Iterable[Run], model: Architecture, cluster: Cluster) -> Iterator[Change]:
    for one in ways:
        work = job(one, model)
        memory = estimate(work)
        if fits(memory, cluster, run.parallel.processes):
            speed = pace(work, cluster)
            yield Change(_difference(run, one), memory, speed.tokens_per_second if speed else None)


def _sharing(run: Run, size: int) -> Run:
    return run.model_copy(update={"parallel": run.parallel.model_copy(update={"sequence": size})})


def nearest(changes: Sequence[Change]) -> list[Change]:
    """The same, the fewest changes first; of those with the same keys the fastest alone."""
    best: dict[tuple[str, ...], Change] = {}
    for change in changes:
        best.setdefault(tuple(key for key, _ in change.overrides), change)
    return sorted(best.values(), key=lambda change: (len(change.overrides), -(change.tokens_per_second or 0)))


def lighter(run: Run, model: Architecture, *, at_most: int = 2) -> list[Change]:
    """Every way to run that needs less of a GPU than the Run does and differs in few settings, whatever the GPU.

    The fewest settings come first, and of as many the way that needs most: the mildest change.
    """
    now = estimate(job(run, model)).total
    found = [
        Change(changed, memory, None)
        for one in _variants(run)
        if 0 < len(changed := _difference(run, one)) <= at_most
        and (memory := estimate(job(one, model))).total < now
    ]
    return sorted(found, key=lambda change: (len(change.overrides), -change.memory.total))


def _variants(run: Run) -> Iterator[Run]:
    ranks = run.parallel.processes
    share = run.train.global_batch * run.parallel.sequence // ranks
    sizes = [rows for rows in (1, 2, 4, 8, 16, 32, 64, 128) if rows <= share and share % rows == 0]
    sizes += [run.train.micro_batch] if run.train.micro_batch not in sizes else []
    alone = ranks == 1 and run.parallel.strategy == "none"
    strategies = ("none", "zero2", "zero3") if alone else STRATEGIES[1:]
    layers = [
        {"activation_checkpointing": recomputed, "activation_offload": offloaded}
        for recomputed, offloaded in ((False, False), (True, False), (True, True))
    ]
    for strategy, offload, kept, rows in product(strategies, range(3), layers, sizes):
        if offload and not strategy.startswith("zero") or offload == 2 and strategy != "zero3":
            continue
        parallel = {"strategy": strategy, "offload_optimizer": offload > 0, "offload_parameters": offload > 1}
        one = run.model_copy(
            update={
                "parallel": run.parallel.model_copy(update=parallel),
                "model": run.model.model_copy(update=kept),
                "train": run.train.model_copy(update={"micro_batch": rows}),
            }
        )
        if not check(one):
            yield one


def _difference(run: Run, other: Run) -> tuple[tuple[str, Any], ...]:
    keys = (
        ("parallel", "strategy"),
        ("parallel", "offload_optimizer"),
        ("parallel", "offload_parameters"),
        ("parallel", "sequence"),
        ("train", "micro_batch"),
        ("model", "activation_checkpointing"),
        ("model", "activation_offload"),
    )
    pairs = (
        (f"{section}.{key}", getattr(getattr(run, section), key), getattr(getattr(other, section), key))
        for section, key in keys
    )
    return tuple((key, new) for key, old, new in pairs if old != new)


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
