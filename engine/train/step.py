"""One optimizer step: the summed loss of all ranks and micro-batches over their number of trained tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from engine.data import Batch, key
from engine.train.assemble import Job
from engine.train.health import MOST_DROPPED, culprits, demand_finite_loss, not_finite, shown
from engine.train.optim import learning_rate


@dataclass(frozen=True, slots=True)
class StepResult:
    """Sums over all ranks. `loss` is per trained token, and None on steps that are not logged."""

    trained_tokens: int
    tokens: int
    rate: float
    grad_norm: float
    stop: bool
    loss: float | None
    saving: list[int]
    """Of the save in the background: how many ranks wrote, published, failed."""


def take_step(job: Job, *, log: bool, asked_to_stop: bool) -> StepResult:
    """Do optimizer step `job.progress.step` (a collective).

    Every trained token of the step has the same weight, whatever row, micro-batch or rank it is on: each
    micro-batch's summed loss is divided by the trained tokens of the whole step. Ranks average gradients, so the
    division is by tokens per rank. Counts and the wish to stop cross host memory: the device is not waited for.

    Raises:
        Stopped: the loss or the gradient is not finite.
    """
    world, engine, step = job.world, job.engine, job.progress.step
    job.where.at("data", step + 1)
    # What is random in a step (dropout) begins anew with each, so that a resumed run needs no generator's state.
    torch.manual_seed(key(job.run.seed, "step", step, world.rank))
    batches = job.loader.micro_batches(step)
    job.perf.take(places=sum(b.input_ids.numel() for b in batches), attended=sum(b.attended for b in batches))
    counts = (
        sum(b.trained_tokens for b in batches),
        sum(b.tokens for b in batches),
        int(asked_to_stop),
    )
    job.where.at("agree")
    trained, tokens, stop, *saving = (int(count) for count in world.sum((*counts, *job.saves.state())))
    scale = world.size / max(1, trained)
    losses = []
    job.orthogonality.share(len(batches) * job.adversary.passes)
    for number, batch in enumerate(batches):
        last = number == len(batches) - 1
        losses.append(_pass_through(job, batch, scale, last=last))
    mean = None
    if log:
        sums = torch.stack(losses).tolist()
        if job.run.train.non_finite == "stop":
            demand_finite_loss(world, step + 1, batches, sums)
        mean = world.sum([sum(sums)])[0] / max(1, trained)
    job.where.at("optimizer")
    rate = learning_rate(job.run.train, step, job.steps)
    with job.budget.kept(step + 1) as ranks:
        update = engine.step(rate)
    if ranks:
        job.tracker.log({"event": "ranks", "step": step + 1, "kept": sum(ranks), "of_each": ranks})
    if not update.skipped:
        _look_at_norm(job, update.grad_norm, batches, losses)
    if mean is not None and math.isfinite(mean):
        _look_for_spike(job, mean, rate, update.grad_norm, batches, losses)
    return StepResult(trained, tokens, rate, update.grad_norm, bool(stop), mean, saving)


def _pass_through(job: Job, batch: Batch, scale: float, *, last: bool) -> torch.Tensor:
    """Gradients of a micro-batch, and of it moved against the model where that is asked for; its own summed loss."""
    engine, own = job.engine, None
    for number in range(job.adversary.passes):
        closes = last and number == job.adversary.passes - 1
        noise = job.noise.added(batch.input_ids, batch.position_ids, step=job.progress.step)
        against = job.adversary.against(batch.position_ids, number=number)
        # Activations that are recomputed meet the same attention in backward.
        with engine.accumulate(last=closes), job.attention.spread(batch.samples), noise, against:
            job.where.at("forward")
            loss = job.objective(engine.module, batch, job.world.device)
            own = loss.detach() if own is None else own
            job.where.at("backward")
            engine.backward(loss * scale, last=closes)
    assert own is not None
    return own


def _look_at_norm(job: Job, norm: float, batches: list[Batch], losses: list[torch.Tensor]) -> None:
    """Go on, tell of a step that was dropped, or stop; the same on all ranks, which have the same norm."""
    step = job.progress.step + 1
    if math.isfinite(norm):
        job.dropped = 0
        return
    job.dropped += 1
    if job.run.train.non_finite == "stop" or job.dropped >= MOST_DROPPED:
        raise not_finite(job.world, step, norm, batches, losses)
    names = culprits(job.world, batches, losses)
    job.tracker.log({"event": "dropped", "step": step, "samples": names})
    job.tracker.say(f"step {step}: gradients are not finite, so it changes nothing; from {shown(names)}")


def _look_for_spike(
    job: Job, loss: float, rate: float, grad_norm: float, batches: list[Batch], losses: list[torch.Tensor]
) -> None:
    """Write down a loss far above the usual, and say it in a line (a collective)."""
    usual = job.spikes.far_above(loss)
    if usual is None:
        return
    step = job.progress.step + 1
    record = {
        "step": step,
        "loss": loss,
        "usual": usual.median,
        "spread": usual.spread,
        "grad_norm": grad_norm,
        "learning_rate": rate,
    }
    worst = job.spikes.write(job.world, record, batches, torch.stack(losses).tolist())
    names = ", ".join(worst.samples[:3]) + (", ..." if len(worst.samples) > 3 else "")
    job.tracker.say(
        f"step {step}: loss {loss:.4g} where {usual.median:.4g} was usual; the worst of it {worst.loss:.4g}, from "
        f"{names} (all in {job.spikes.path})"
    )
