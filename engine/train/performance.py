"""The performance card of an attempt: speed, MFU, the measured ceiling, packing, and where the time went."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch

from engine import protocol
from engine.dist import World
from engine.heartbeat import STEP_PHASES
from engine.model import DTYPES, graphs
from engine.peaks import peak_flops
from engine.track import Totals
from engine.train.assemble import Job
from engine.train.ceiling import matmul_flops
from engine.train.flops import Work, weights

SHOWN = 0.0005
"""Share of the time below which a phase is not worth a word."""


@dataclass(frozen=True, slots=True)
class Saves:
    """Checkpoints of the attempt, and what they held it up for; `share` of the loop's time."""

    count: int
    mean_ms: float
    longest_ms: float
    share: float


@dataclass(frozen=True, slots=True)
class Card:
    """One attempt, over all ranks.

    Attributes:
        first_step, last_step: of this attempt.
        device: what the ranks compute on.
        ranks: how many.
        tokens_per_second, trained_tokens_per_second: in steps after the first, validation and saving left out.
        packing: share of the rows' places that hold a token of a sample.
        flops_per_token: by convention.
        mfu: share of the vendor's peak, by convention; None where that is not known.
        peak_tflops: the vendor's peak of all ranks together.
        ceiling_tflops: what all ranks together reach in square matrix products, measured at the end.
        ceiling_share: of it, what the steps needed.
        clock: whose time `seconds` is: the host's, or within steps the device's.
        seconds: by phase, mean over ranks; together the loop's time.
        saves: checkpoints.
        compiled_graphs: what `model.compile` made of the layers, on the first rank; None without it.
        summary: the lines that were printed.
    """

    first_step: int
    last_step: int
    device: str
    ranks: int
    precision: str
    tokens_per_second: float
    trained_tokens_per_second: float
    packing: float
    flops_per_token: dict[str, float]
    mfu: dict[str, float] | None
    peak_tflops: float | None
    ceiling_tflops: float | None
    ceiling_share: float | None
    clock: str
    seconds: dict[str, float]
    saves: Saves
    compiled_graphs: int | None = None
    summary: tuple[str, ...] = ()


def tell_performance(job: Job) -> None:
    """Measure the ceiling, leave and print the card of this attempt (a collective); nothing where no step was taken."""
    totals = job.perf.totals()
    if not totals.all.steps:
        return
    card = _card(job, totals)
    if not job.world.first:
        return
    lines = tuple(summary(card))
    record = asdict(card) | {"summary": lines}
    protocol.write_json(job.run.folder / protocol.PERF, record)
    numbers = ("tokens_per_second", "trained_tokens_per_second", "packing", "ceiling_share")
    mfu = {f"mfu_{name}": value for name, value in (card.mfu or {}).items()}
    job.tracker.log({"event": "perf", **{name: record[name] for name in numbers}, **mfu})
    for line in lines:
        job.tracker.say(line)


def _card(job: Job, totals: Totals) -> Card:
    world, model = job.world, weights(job.engine.model)
    dtype = DTYPES[job.run.parallel.precision]
    name = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "cpu"
    places, attended = (int(value) for value in world.sum([totals.all.places, totals.warm.attended]))
    work = Work(totals.warm.tokens, totals.warm.trained_tokens, attended)
    spent = _mean(world, [totals.warm_seconds])[0]
    peak = _peak(world, name, dtype)
    world.barrier()
    ceiling = _whole(world, matmul_flops(world.device, dtype))
    conventions = {"6N": model.six(work), "4N": model.four(work), "needed": model.needed(work)}
    needed = conventions["needed"] / spent
    clock, seconds = _seconds(world, totals)
    whole = sum(seconds.values())
    return Card(
        first_step=job.progress.step - totals.all.steps + 1,
        last_step=job.progress.step,
        device=name,
        ranks=world.size,
        precision=job.run.parallel.precision,
        tokens_per_second=work.tokens / spent,
        trained_tokens_per_second=work.trained_tokens / spent,
        packing=totals.all.tokens / max(1, places),
        flops_per_token={name: flops / max(1, work.tokens) for name, flops in conventions.items()},
        mfu={name: flops / spent / peak for name, flops in conventions.items()} if peak else None,
        peak_tflops=peak and peak / 1e12,
        ceiling_tflops=ceiling and ceiling / 1e12,
        ceiling_share=needed / ceiling if ceiling else None,
        clock=clock,
        seconds=seconds,
        saves=Saves(
            totals.saves,
            1000 * totals.save_seconds / max(1, totals.saves),
            1000 * totals.longest_save,
            totals.save_seconds / whole,
        ),
        compiled_graphs=graphs() if job.run.model.compile else None,
    )


def _mean(world: World, values: list[float]) -> list[float]:
    return [value / world.size for value in world.sum(values)]


def _whole(world: World, value: float | None) -> float | None:
    """The sum over all ranks, where each has a value."""
    found, total = world.sum([value is not None, value or 0.0])
    return total if found == world.size else None


def _peak(world: World, name: str, dtype: torch.dtype) -> float | None:
    # The table's peaks are those of 16-bit products.
    return _whole(world, None if dtype == torch.float32 else peak_flops(name))


def _seconds(world: World, totals: Totals) -> tuple[str, dict[str, float]]:
    """Whose clock, and seconds by phase, mean over ranks.

    On a GPU the steps' time is divided as the device divided it in the steps that were looked at.
    """
    names = list(totals.seconds)
    seconds = dict(zip(names, _mean(world, [totals.seconds[name] for name in names]), strict=True))
    device = _mean(world, [totals.device.get(phase, 0.0) for phase in STEP_PHASES])
    if not sum(device):
        return "host", seconds
    steps = sum(seconds[phase] for phase in STEP_PHASES)
    for phase, spent in zip(STEP_PHASES, device, strict=True):
        seconds[phase] = steps * spent / sum(device)
    return f"device, in {totals.watched} of {totals.all.steps} steps", seconds


def summary(card: Card) -> Iterator[str]:
    """The card in two lines."""
    parts = [
        f"perf: steps {card.first_step} to {card.last_step}: {card.tokens_per_second:,.0f} tokens/s "
        f"({card.trained_tokens_per_second:,.0f} trained), {_share(card.packing)} packed"
    ]
    if card.mfu is not None:
        figures = " and ".join(f"{_share(card.mfu[name])} ({name})" for name in _told(card))
        parts.append(f"MFU {figures} of {card.peak_tflops:,.0f} TFLOPS")
    if card.ceiling_share is not None and card.ceiling_tflops is not None:
        reached = _speed(card.ceiling_tflops)
        parts.append(f"{_share(card.ceiling_share)} of the {reached} that matrix products reach here")
    if card.compiled_graphs is not None:
        parts.append(f"layers compiled to {card.compiled_graphs} graphs")
    yield ", ".join(parts)
    whole = sum(card.seconds.values())
    phases = sorted(card.seconds.items(), key=lambda each: -each[1])
    shares = [f"{name} {_share(spent / whole)}" for name, spent in phases if spent / whole > SHOWN]
    saves = card.saves
    held = f"; {saves.count} saves of {saves.mean_ms:,.0f} ms" if saves.count else ""
    yield f"time ({card.clock}): {', '.join(shares)}{held}"


def _told(card: Card) -> list[str]:
    """Conventions that differ: where every weight trains, 4N is 6N."""
    same = card.flops_per_token["6N"] == card.flops_per_token["4N"]
    return ["6N"] if same else ["6N", "4N"]


def _share(value: float) -> str:
    return f"{value:.0%}" if value >= 0.095 else f"{value:.1%}"


def _speed(tflops: float) -> str:
    return f"{tflops:,.0f} TFLOPS" if tflops >= 10 else f"{1000 * tflops:,.0f} GFLOPS"
