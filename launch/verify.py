"""`temper verify`: the same few steps cut in every other way that should not matter, and whether it does not.

Loss and gradient norm of every step are compared with those of the run as it is: after a step that differs in one
weight the next loss differs, so a handful of steps sees what a comparison of all gradients would.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from engine import errors, protocol
from engine.config import Run, check
from engine.errors import WishError
from launch.verbs import read

STRATEGIES = ("none", "ddp", "zero1", "zero2", "zero3", "fsdp2")
STILL = (
    "model.dropout=0",
    "adapter.dropout=0",
    "train.log_every=1",
    "train.validate_every=0",
    "train.evaluate_every=0",
    "train.early_stop_patience=0",
    "checkpoint.every=0",
    "checkpoint.at_end=false",
    "checkpoint.export=none",
    "checkpoint.resume=never",
    "track.wandb=null",
    "track.tensorboard=false",
    'track.live="no"',
)
"""Nothing random, nothing saved, nothing but steps."""
LIMITS = {"fp32": (1e-5, 1e-3), "bf16": (1e-2, 5e-2), "fp16": (1e-2, 5e-2)}
"""By precision: largest relative difference of a loss, and of a gradient norm, that rounding is granted."""


@dataclass(frozen=True, slots=True)
class Variant:
    """Another way to do the same steps: what is different, as overrides."""

    name: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """What a variant logged: loss and gradient norm of each step, and what its ranks found to be in force."""

    in_force: str
    losses: tuple[float, ...]
    norms: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table; differences are relative, the largest of any step, and None where a variant did not run."""

    name: str
    in_force: str
    loss: float | None
    grad_norm: float | None
    same: bool
    why: str = ""

    @property
    def line(self) -> str:
        """As a person reads it."""
        if self.loss is None or self.grad_norm is None:
            return f"  {self.name:<24} {self.in_force}: {self.why}"
        numbers = f"loss {self.loss:.1e}, gradient norm {self.grad_norm:.1e}"
        return f"  {self.name:<24} {'same' if self.same else 'DIFFERENT':<10} {numbers}  ({self.in_force})"


def variants(run: Run) -> Iterator[Variant]:
    """The run as it is, and then every other cut of its steps that the rules allow.

    Micro-batches half and twice as large, half the ranks, rows that no ranks share, every other strategy on the same
    ranks, offload, the other way to compute the loss, attention behind a mask over padded rows, activation
    checkpointing switched, what it keeps moved to the host, layers compiled or not.
    """
    yield Variant("as it is")
    for variant in _candidates(run):
        if not check(load_with(run, variant)):
            yield variant


def _candidates(run: Run) -> Iterator[Variant]:
    rows, ranks, strategy = run.train.micro_batch, run.parallel.processes, run.parallel.strategy
    for size in (rows // 2, rows * 2):
        if size:
            yield Variant(f"micro-batch {size}", (f"train.micro_batch={size}",))
    if ranks > 1:
        half = ranks // 2
        yield Variant(f"{half} rank{'s' * (half > 1)}", _on(half, strategy))
    if run.parallel.sequence > 1:
        groups = ranks // run.parallel.sequence
        yield Variant("rows on one rank each", ("parallel.sequence=1", *_on(groups, strategy)))
    for other in STRATEGIES:
        if other != strategy and (ranks == 1) == (other == "none"):
            plain = ("parallel.offload_optimizer=false", "parallel.offload_parameters=false")
            yield Variant(other, (f"parallel.strategy={other}", *plain))
    if strategy in ("zero1", "zero2", "zero3") and not run.parallel.offload_optimizer:
        yield Variant("optimizer offloaded", ("parallel.offload_optimizer=true",))
    chunked, recomputed = run.train.chunked_loss, run.model.activation_checkpointing
    yield Variant(
        "loss from logits" if chunked else "loss in chunks", (f"train.chunked_loss={_word(not chunked)}",)
    )
    if run.model.attention == "auto" and run.parallel.sequence == 1:
        yield Variant("masks and padding", ("model.attention=sdpa",))
    yield Variant(
        "activations kept" if recomputed else "activations recomputed",
        (
            f"model.activation_checkpointing={_word(not recomputed)}",
            *(("model.activation_offload=false",) if run.model.activation_offload else ()),
        ),
    )
    offloaded, compiled = run.model.activation_offload, run.model.compile
    yield Variant(
        "layers' inputs kept" if offloaded else "layers' inputs offloaded",
        (f"model.activation_offload={_word(not offloaded)}", "model.activation_checkpointing=true"),
    )
    yield Variant(
        "layers not compiled" if compiled else "layers compiled", (f"model.compile={_word(not compiled)}",)
    )


def _on(ranks: int, strategy: str) -> tuple[str, str]:
    """The strategy on so many ranks; replicas of one are none."""
    alone = "none" if ranks == 1 and strategy == "ddp" else strategy
    return f"parallel.processes={ranks}", f"parallel.strategy={alone}"


def load_with(run: Run, variant: Variant) -> Run:
    """The Run of a variant, as far as the rules look at it."""
    tree = run.model_dump(mode="json")
    for override in variant.overrides:
        key, _, value = override.partition("=")
        section, _, name = key.partition(".")
        tree[section][name] = json.loads(value) if value in ("true", "false") or value.isdigit() else value
    return Run.model_validate(tree)


def _word(wish: bool) -> str:
    return "true" if wish else "false"


def trace(run_file: str, folder: Path, words: Sequence[str]) -> Trace:
    """Train a variant in a folder of its own, by `temper train` itself.

    Raises:
        WishError: it did not come to its end; with its last words.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    argv = [sys.executable, "-m", "launch", "train", run_file]
    for word in (*words, f"output={folder}"):
        argv += ["--set", word]
    log = folder / "verify.log"
    with log.open("wb") as stream:
        done = subprocess.run(argv, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("temper: ")]
        raise WishError(
            said[0].removeprefix("temper: ") if said else f"it ended with {done.returncode}", f"see {log}"
        )
    records = [json.loads(line) for line in (folder / protocol.METRICS).read_text().splitlines()]
    steps = [record for record in records if "loss" in record]
    facts = json.loads((folder / protocol.FACTS).read_text())
    in_force = f"{facts['strategy'].partition(' (')[0]}, loss {facts['loss']}"
    return Trace(in_force, tuple(one["loss"] for one in steps), tuple(one["grad_norm"] for one in steps))


def apart(one: Sequence[float], other: Sequence[float]) -> float:
    """Largest relative difference; infinite where one has another number of steps."""
    if len(one) != len(other):
        return float("inf")
    return max(abs(a - b) / max(abs(b), 1e-12) for a, b in zip(one, other, strict=True))


@click.command()
@click.argument("run_file", metavar="RUN.yaml")
@click.option(
    "--set", "overrides", multiple=True, metavar="a.b=c", help="Override one value; may be repeated."
)
@click.option("--processes", type=int, metavar="N", help="Short for --set parallel.processes=N.")
@click.option(
    "--steps", type=click.IntRange(2), default=4, show_default=True, help="Optimizer steps of each variant."
)
@click.option(
    "--only", multiple=True, metavar="WORD", help="Only variants whose name has this; may be repeated."
)
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def verify(
    run_file: str,
    overrides: tuple[str, ...],
    processes: int | None,
    steps: int,
    only: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train the same few steps in every other way that should not matter, and compare losses and gradient norms.

    Your model, data and machine; nothing is saved. Packed rows are compared with separate ones by the model itself
    before its first step, whatever the verb. Exit codes: 0 all the same, 1 a variant differs or did not run.
    """
    loaded, overrides = read(run_file, overrides, processes)
    run = loaded.run
    folder = run.folder / "verify"
    common = (*overrides, *STILL, f"train.steps={steps}")
    chosen = [
        one
        for one in variants(run)
        if not one.overrides or not only or any(word in one.name for word in only)
    ]
    if not as_json:
        print(f"{len(chosen)} variants of {steps} steps, {run.parallel.precision}, in {folder}", flush=True)
    rows: list[Row] = []
    reference: Trace | None = None
    for variant in chosen:
        try:
            found = trace(run_file, folder / variant.name.replace(" ", "-"), (*common, *variant.overrides))
        except WishError as error:
            rows.append(Row(variant.name, "did not run", None, None, False, str(error)))
        else:
            reference = reference or found
            rows.append(compared(variant, found, reference, LIMITS[run.parallel.precision]))
        if not as_json:
            print(rows[-1].line, flush=True)
        if reference is None:
            break  # there is nothing to compare with
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    sys.exit(errors.DONE if all(row.same for row in rows) else errors.BUG)


def compared(variant: Variant, found: Trace, reference: Trace, limits: tuple[float, float]) -> Row:
    """A variant beside the run as it is; `limits` of loss and gradient norm."""
    loss, norm = apart(found.losses, reference.losses), apart(found.norms, reference.norms)
    return Row(variant.name, found.in_force, loss, norm, loss <= limits[0] and norm <= limits[1])
