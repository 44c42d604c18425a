"""The loop: step, report, validate, evaluate, save when due; stop where all ranks agree."""

from __future__ import annotations

import math
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from engine import protocol
from engine.checkpoint import WEIGHTS, Published, resume, sync_tree
from engine.config import Run
from engine.dist import World
from engine.errors import Preempted, TemperError, WishError
from engine.heartbeat import Where
from engine.track import Progress, memory, memory_bytes
from engine.train.assemble import Evaluation, Job, assemble
from engine.train.classes import validate_classes
from engine.train.performance import tell_performance
from engine.train.rehearsal import rehearse, rehearses
from engine.train.step import StepResult, take_step
from engine.train.stop import listen


def train(
    run: Run,
    world: World,
    *,
    evaluate: Evaluation | None = None,
    benchmark_texts: Any = None,
    where: Where | None = None,
) -> protocol.Outcome:
    """Train a Run to its end (a collective).

    Args:
        run: the Run.
        world: the ranks.
        evaluate: in-loop evaluation; called on every rank every `train.evaluate_every` steps.
        benchmark_texts: texts of held-out tasks that training rows must not overlap.
        where: told what this rank is doing, for its crash file and heartbeat.

    Raises:
        PreflightError: the rehearsal ran out of memory or disk.
        Preempted: a signal asked to stop; the state is saved.
        Stopped: the run cannot go on (loss not finite, disk full).
        WishError: something in the Run cannot be met.
    """
    started = time.monotonic()
    with listen() as asked:
        job = assemble(run, world, where or Where(), benchmark_texts)
        job.evaluate = evaluate
        if rehearses(run, world):
            rehearse(job)
        _resume(job)
        status = "early_stopped" if _waited_enough(job) else "finished"
        saved = job.progress.step if job.progress.step else -1
        while job.progress.step < job.steps and status == "finished":
            due = _due(job)
            began = time.monotonic()
            job.perf.begin(watched=due)
            result = take_step(job, log=due, asked_to_stop=bool(asked))
            _advance(job, result, time.monotonic() - began)
            job.where.at("log")
            _tell_published(job, job.saves.agree(result.saving))
            job.meter.step(result.tokens, result.trained_tokens)
            job.perf.step(result.tokens, result.trained_tokens)
            logged = _report(job, result) if due else {}
            with job.meter.aside():
                measured = _measure(job)
            improved = _watch(job, logged | measured)
            early = _waited_enough(job)
            ending = early or result.stop or job.progress.step == job.steps
            wanted = run.checkpoint.every and job.progress.step % run.checkpoint.every == 0
            # What is logged every few steps ranks the checkpoints; what was measured for its own sake makes one.
            best = improved and run.checkpoint.metric in measured and run.checkpoint.keep_best
            last = ending and (run.checkpoint.at_end or result.stop)
            if last or wanted or best:
                with job.meter.aside():
                    _save(job, logged | measured, at_once=ending)
                saved = job.progress.step
            if result.stop and job.progress.step < job.steps:
                status = "preempted"
                break
            if early:
                status = "early_stopped"
                break
        return _finish(job, status, saved, started)


def _resume(job: Job) -> None:
    job.where.at("resume")
    if job.run.checkpoint.resume == "never":
        if job.world.first:
            # What came of it goes too: stopped early, this attempt would leave an older training's in its place.
            job.store.discard_after(-1)
            for name in (protocol.MODEL, protocol.ADAPTER, protocol.EVALUATIONS):
                shutil.rmtree(job.run.folder / name, ignore_errors=True)
        job.world.barrier()
        found = None
    else:
        say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
        found = resume(job.store, engine=job.engine, run=job.run, world=job.world, files=job.files, say=say)
    job.progress = found or job.progress
    job.tracker.truncate_after(job.progress.step)
    if job.world.first:
        job.spikes.forget_after(job.progress.step)
        _forget_evaluations(job.run, job.progress.step)
    if found is not None and job.world.first:
        print(f"resumed at step {found.step} of {job.steps}", flush=True)


def _forget_evaluations(run: Run, step: int) -> None:
    """Drop in-loop answers of steps that will be run again: other weights may stand under the same step then."""
    for folder in (run.folder / protocol.EVALUATIONS / protocol.IN_LOOP).glob("step-*"):
        if int(folder.name.removeprefix("step-")) > step:
            shutil.rmtree(folder, ignore_errors=True)


def _waited_enough(job: Job) -> bool:
    """Whether early stopping has run out of patience, perhaps in an earlier attempt already."""
    return 0 < job.run.train.early_stop_patience <= job.progress.waited


def _due(job: Job) -> bool:
    """Whether the coming step is logged: every few, and those a checkpoint is saved at."""
    step, saves = job.progress.step + 1, job.run.checkpoint.every
    return step in (1, job.steps) or step % job.run.train.log_every == 0 or bool(saves and step % saves == 0)


def _advance(job: Job, result: StepResult, seconds: float) -> None:
    old = job.progress
    job.progress = replace(
        old,
        step=old.step + 1,
        trained_tokens=old.trained_tokens + result.trained_tokens,
        tokens=old.tokens + result.tokens,
        seconds=old.seconds + seconds,
    )


def _report(job: Job, result: StepResult) -> dict[str, Any]:
    """Log the step just done; its numbers by name."""
    record = {
        "loss": result.loss,
        "learning_rate": result.rate,
        "grad_norm": result.grad_norm,
        "trained_tokens": result.trained_tokens,
        "tokens": result.tokens,
        "tokens_per_second": job.meter.tokens_per_second,
        "trained_tokens_per_second": job.meter.trained_tokens_per_second,
        "trained_tokens_total": job.progress.trained_tokens,
        "seconds": job.progress.seconds,
        "memory_mb": memory_bytes() / 2**20,
    }
    job.tracker.log({"step": job.progress.step, **record})
    job.tracker.progress(
        Progress(
            step=job.progress.step,
            total=job.steps,
            loss=result.loss,
            learning_rate=result.rate,
            tokens_per_second=job.meter.tokens_per_second,
            trained_tokens_per_second=job.meter.trained_tokens_per_second,
            memory_bytes=memory_bytes(),
            eta_seconds=job.meter.eta_seconds(job.steps - job.progress.step),
            scores=job.scores,
        )
    )
    return record


def _measure(job: Job) -> dict[str, float]:
    """Validation loss and in-loop evaluation, where due at this step."""
    train, step = job.run.train, job.progress.step
    last = step == job.steps
    metrics: dict[str, float] = {}
    if job.validation and (last or (train.validate_every and step % train.validate_every == 0)):
        job.where.at("validate")
        classes = job.run.model.head != "language"
        metrics |= validate_classes(job) if classes else {"validation_loss": validate(job)}
    if job.evaluate is not None and train.evaluate_every and (last or step % train.evaluate_every == 0):
        job.where.at("evaluate")
        with job.engine.whole() as model:
            metrics |= job.evaluate(model, job.tokenizer, step)
        job.engine.module.train()
        watched = job.run.checkpoint.metric
        if watched.startswith("pass@") and watched not in metrics:
            raise WishError(
                f"checkpoint.metric is {watched}, which the benchmark does not give",
                f"it gives {', '.join(sorted(metrics))}",
            )
    if metrics:
        job.tracker.log({"step": step, **metrics})
        job.scores |= {name: value for name, value in metrics.items() if name.startswith("pass@")}
        job.tracker.say(
            f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        )
    return metrics


@torch.no_grad()
def validate(job: Job) -> float:
    """Loss per trained token of the validation set, over all ranks (a collective)."""
    job.engine.module.eval()
    total, tokens = 0.0, 0.0
    for batch in job.validation:
        job.where.at("validate")
        with job.attention.spread(batch.samples):
            total += float(job.objective(job.engine.module, batch, job.world.device))
        tokens += batch.trained_tokens
    job.engine.module.train()
    total, tokens = job.world.sum([total, tokens])
    return total / max(1, tokens)


def _watch(job: Job, metrics: dict[str, float]) -> bool:
    """Whether the watched metric was measured and is the best so far."""
    value = metrics.get(job.run.checkpoint.metric)
    if value is None:
        return False
    best = job.progress.best
    better = best is None or (value < best if job.small_is_good else value > best)
    improved = better and math.isfinite(value)
    waited = 0 if improved else job.progress.waited + 1
    job.progress = replace(job.progress, best=value if improved else best, waited=waited)
    return improved


def _save(job: Job, metrics: dict[str, float], *, at_once: bool) -> None:
    job.where.at("save")
    began = time.monotonic()
    published = job.saves.save(job.progress, metrics, at_once=at_once)
    held = time.monotonic() - began
    job.perf.saved(held)
    job.tracker.log({"event": "save", "step": job.progress.step, "save_ms": round(1000 * held, 1)})
    _tell_published(job, published)


def _tell_published(job: Job, published: list[Published]) -> None:
    for each in published:
        job.tracker.log({"event": "saved", "step": each.step, "seconds": round(each.seconds, 3)})


def _finish(job: Job, status: Any, saved: int, started: float) -> protocol.Outcome:
    job.where.at("finish")
    _tell_published(job, job.saves.finish())
    checkpoint = str(job.store.path(saved)) if saved >= 0 else None
    outcome = protocol.Outcome(status, job.progress.step, time.monotonic() - started, checkpoint)
    if job.world.first:
        _tell_memory(job)
        if status != "preempted":
            _export(job)
    tell_performance(job)
    if job.world.first:
        protocol.write_outcome(job.run.folder, outcome)
    job.tracker.close()
    job.world.barrier()
    if status == "preempted":
        never = job.run.checkpoint.resume == "never"
        raise Preempted(
            f"asked to stop: saved at step {job.progress.step} of {job.steps}",
            "run it with --set checkpoint.resume=auto to resume; as it is, the next start discards this"
            if never
            else "run the same command again to resume",
        )
    return outcome


def _tell_memory(job: Job) -> None:
    """The planned peak of this rank's tensors beside the measured one, which only CUDA's allocator counts."""
    planned = protocol.read_prediction(job.run.folder)
    if planned is None or job.world.device.type != "cuda":
        return
    measured = memory_bytes()
    job.tracker.log({"event": "memory", "planned_mb": planned.size / 2**20, "measured_mb": measured / 2**20})
    job.tracker.say(f"memory: planned {memory(planned.size)} of tensors, measured {memory(measured)}")


def _export(job: Job) -> None:
    """Publish the last or best checkpoint's weights as the run's result: whole under its name, or not there."""
    wish = job.run.checkpoint.export
    if wish == "none":
        return
    found = job.store.newest() if wish == "last" else job.store.best()
    if found is None:
        raise TemperError(
            f"no checkpoint of {job.store.folder} has a finite {job.store.metric}, so none is the best",
            "run again with checkpoint.export=last to have the last one's weights",
        )
    target = _result(job.run)
    partial, old = (target.with_name(f"{target.name}.{ending}") for ending in ("partial", "old"))
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(found.path / WEIGHTS, partial)
    sync_tree(partial)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    print(f"{target}: weights of step {found.step}", flush=True)


def _result(run: Run) -> Path:
    return run.folder / (protocol.MODEL if run.adapter.kind == "full" else protocol.ADAPTER)
