"""All that can be told of a run before it starts, as one frozen value: command, memory, extent, disk, pace, verdict."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine import protocol
from engine.config import Run, check, demand
from engine.errors import WishError
from launch.architecture import Architecture, architecture
from launch.command import LaunchPlan
from launch.cost import Extent, Measured, Pace, extent, measured, pace
from launch.fit import METHODS, STRATEGIES, Change, fits, lighter, search
from launch.hardware import NO_BF16, Cluster
from launch.memory import Memory, estimate
from launch.moments import optimizer_bytes
from launch.states import MASTER, counts, job, weight_width


@dataclass(frozen=True, slots=True)
class Cell:
    """One strategy and method of the overview; `memory` is None where the rules refuse the pair."""

    strategy: str
    method: str
    memory: Memory | None


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a run would do and need. `launch` is the value that `temper train` executes.

    `changes` are all ways to run that fit, the fastest first; empty where no hardware was named.
    """

    run: Run
    launch: LaunchPlan
    model: Architecture
    memory: Memory
    cells: tuple[Cell, ...]
    extent: Extent
    cluster: Cluster | None
    pace: Pace | None
    measured: Measured | None
    changes: tuple[Change, ...]

    @property
    def fits(self) -> bool | None:
        """Whether it fits the cluster; None where none was named."""
        ranks = self.run.parallel.processes
        return None if self.cluster is None else fits(self.memory, self.cluster, ranks)

    @property
    def checkpoint_bytes(self) -> int:
        """One checkpoint on disk."""
        return checkpoint_bytes(self.run, self.model)

    @property
    def disk_bytes(self) -> int:
        """The checkpoints kept, one being written, and the exported weights twice while they are replaced."""
        kept = self.run.checkpoint.keep_last + self.run.checkpoint.keep_best + 1
        exported = 0 if self.run.checkpoint.export == "none" else 2 * published_bytes(self.run, self.model)
        return kept * self.checkpoint_bytes + exported

    @property
    def seconds(self) -> float | None:
        """Time of all steps; start, validation and saving are left out."""
        if self.pace is None or self.extent.tokens is None:
            return None
        return self.extent.tokens / self.pace.tokens_per_second

    @property
    def files(self) -> tuple[str, ...]:
        """What the run will write, each with its meaning."""
        folder, run = self.run.folder, self.run
        result = protocol.MODEL if run.adapter.kind == "full" else protocol.ADAPTER
        found = [
            f"{folder / protocol.RUN}",
            f"{folder / protocol.METRICS}",
            *([f"{folder / protocol.PLAN}"] if run.parallel.device != "cpu" else []),
            f"{folder / protocol.FACTS}",
            f"{folder / protocol.PERF}",
            f"{folder / protocol.OUTCOME}",
            f"{folder / protocol.ATTEMPTS}",
            f"{folder / protocol.LOGS}/",
            f"{folder / protocol.CHECKPOINTS}/step-N/",
        ]
        found += [f"{folder / result}/"] if run.checkpoint.export != "none" else []
        found += [f"{folder / protocol.EVALUATIONS / protocol.IN_LOOP}/"] if run.train.evaluate_every else []
        found += [f"{folder / 'tensorboard'}/"] if run.track.tensorboard else []
        return tuple(found)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Names of variables that the ranks read besides those on the line; values are never shown."""
        names = [] if Path(self.run.model.path).is_dir() else ["HF_HOME", "HF_TOKEN"]
        return (*names, *(["WANDB_API_KEY"] if self.run.track.wandb else []))


def outlook(
    run: Run, launch: LaunchPlan, model: Architecture, place: Cluster | None, past: str | None = None
) -> Outlook:
    """The outlook of a training run.

    Args:
        run: the effective Run.
        launch: how it would be started.
        model: its model's architecture.
        place: where it would run; empty: memory is told without a verdict.
        past: a run folder whose speed replaces the estimate; empty: the run's own, if it has records.

    Raises:
        WishError: more ranks than GPUs, a precision the GPU does not have, or a past run that is another's.
    """
    _demand_place(run, place)
    cpu = run.parallel.device == "cpu"
    work = job(run, model, cpu=cpu)
    record = measured(Path(past), run) if past else _own_record(run)
    speed = pace(work, place) if place and not cpu else None
    if record is not None:
        speed = Pace(record.tokens_per_second, f"logged in {record.source}", True)
    return Outlook(
        run=run,
        launch=launch,
        model=model,
        memory=estimate(work),
        cells=tuple(_cells(run, model, cpu=cpu)),
        extent=extent(run),
        cluster=place,
        pace=speed,
        measured=record,
        changes=tuple(search(run, model, place)) if place and not cpu else (),
    )


def _own_record(run: Run) -> Measured | None:
    """What the run's own folder tells of it; None where it was not trained yet, or as another."""
    try:
        return measured(run.folder, run)
    except WishError:
        return None


def _demand_place(run: Run, place: Cluster | None) -> None:
    demand(run)
    if run.data is None:
        raise WishError("this run has no data section, so there is no training to plan", "add data.train")
    if place is None:
        return
    parallel = run.parallel
    if parallel.device == "cpu":
        raise WishError(
            f"parallel.device is cpu and --on names {place.name}", "leave --on out, or set device to cuda"
        )
    if parallel.processes > place.gpus:
        raise WishError(
            f"parallel.processes is {parallel.processes} and {place.name} has {place.gpus} GPUs",
            f"use --processes {place.gpus}, or name larger hardware",
        )
    if parallel.precision == "bf16" and place.gpu.name in NO_BF16:
        raise WishError(
            f"parallel.precision is bf16, which a {place.gpu.name} cannot compute in",
            "use parallel.precision fp16",
        )


def _cells(run: Run, model: Architecture, *, cpu: bool) -> list[Cell]:
    """The same batch under every strategy and method, on the same ranks."""
    found = []
    for strategy in STRATEGIES:
        for method in METHODS:
            keep = strategy == run.parallel.strategy
            offload = {} if keep else {"offload_optimizer": False, "offload_parameters": False}
            start = {} if method == run.adapter.kind else {"init": "default"}
            one = run.model_copy(
                update={
                    "parallel": run.parallel.model_copy(update={"strategy": strategy, **offload}),
                    "adapter": run.adapter.model_copy(update={"kind": method, **start}),
                }
            )
            memory = None if check(one) else estimate(job(one, model, cpu=cpu))
            found.append(Cell(strategy, method, memory))
    return found


def published_bytes(run: Run, model: Architecture) -> int:
    """The weights that are trained, as others load them."""
    return weight_width(run) * counts(model, run.adapter).trained


def checkpoint_bytes(run: Run, model: Architecture) -> int:
    """Bytes of one checkpoint on disk, all ranks' files together (`engine.checkpoint.save`).

    Every strategy writes fp32 masters and the optimizer's state once, and the weights that others load.
    """
    count = counts(model, run.adapter)
    state = MASTER * count.trained + sum(optimizer_bytes(run, count.trained, model))
    return state + published_bytes(run, model)


def everywhere(run: Run, nodes: int) -> Run:
    """The Run with the ranks of all nodes as `parallel.processes`, which in a file counts those of one."""
    parallel = run.parallel.model_copy(update={"processes": nodes * run.parallel.processes})
    return run.model_copy(update={"parallel": parallel})


def leave_prediction(run: Run) -> None:
    """Write what a run is planned to need into its folder, for the ranks to compare with what they measure.

    Nothing is written for CPU ranks, whose memory is not counted apart, or for a model that is not known here; and
    none that an earlier attempt left stays. A folder that cannot be written is told by whoever starts the ranks.
    """
    with suppress(OSError):
        (run.folder / protocol.PLAN).unlink(missing_ok=True)
        if run.data is None or run.parallel.device == "cpu":
            return
        try:
            model = architecture(run)
            memory = estimate(job(run, model))
        except WishError:
            return
        terms = {term.name: term.size for term in memory.terms}
        changes = tuple(protocol.Lighter(change.words, change.memory.total) for change in lighter(run, model))
        plan = protocol.Prediction(memory.tensors, memory.phase, terms, memory.total, changes)
        protocol.write_prediction(run.folder, plan)
