"""Rules across sections: one table of small functions, each naming the clash and the fix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from engine.config import adapters, asked, classes, layers, optimizers, sequence, served
from engine.config.finding import Finding
from engine.config.run import Run
from engine.config.shape import shape
from engine.errors import WishError

LOGGED = ("loss", "grad_norm", "learning_rate", "tokens_per_second", "trained_tokens_per_second", "memory_mb")
"""What the loop logs of every few steps, and so may be watched."""
Rule = Callable[[Run, int], Iterator[Finding]]


def check(run: Run, world_size: int | None = None, *, training: bool = True) -> list[Finding]:
    """Every clash in a Run.

    Args:
        run: the Run.
        world_size: ranks in all; empty: `parallel.processes`.
        training: whether the Run is to be trained, or only its model judged, which any number of ranks may do.
    """
    ranks = world_size or run.parallel.processes
    rules = (*RULES, *(OF_TRAINING if training else OF_JUDGING))
    return [finding for rule in rules for finding in rule(run, ranks)]


def demand(run: Run, world_size: int | None = None, *, training: bool = True) -> None:
    """Raise the first clash of a Run, counting the others; arguments as `check` takes them.

    Raises:
        WishError: there is a clash.
    """
    findings = check(run, world_size, training=training)
    if findings:
        more = f" (and {len(findings) - 1} more: `temper config check` lists them)" if findings[1:] else ""
        raise WishError(findings[0].what + more, findings[0].fix)


def batch_divides(run: Run, ranks: int) -> Iterator[Finding]:
    """Every rank does the same number of whole micro-batches."""
    if run.data is None:
        return
    shared = run.parallel.sequence
    groups, batch = max(1, ranks // shared), run.train.global_batch
    step = groups * run.train.micro_batch
    if batch % step:
        below, above = batch // step * step, (batch // step + 1) * step
        sizes = " or ".join(str(size) for size in (below, above) if size)
        dividing = [str(n * shared) for n in range(1, 2 * groups) if batch % (n * run.train.micro_batch) == 0]
        others = f", or {_any_of(dividing)} ranks" if dividing else ""
        who = f"{ranks} ranks" if shared == 1 else f"{groups} groups of {shared} ranks"
        yield Finding(
            f"train.global_batch {batch} is not divisible by {who} x train.micro_batch {run.train.micro_batch}",
            f"use a global batch of {sizes}{others}",
        )


def restarts_resume(run: Run, ranks: int) -> Iterator[Finding]:
    """A start by itself must not throw away what the one before has saved."""
    restarts = run.parallel.restarts
    if restarts and run.checkpoint.resume == "never":
        yield Finding(
            f"parallel.restarts is {restarts} and checkpoint.resume is never", "use checkpoint.resume auto"
        )


def range_rises_from_somewhere(run: Run, ranks: int) -> Iterator[Finding]:
    """The range test climbs by equal factors, which zero has none of, and by itself."""
    train = run.train
    if train.schedule != "range":
        return
    if train.min_learning_rate_ratio == 0:
        yield Finding(
            "train.schedule is range and train.min_learning_rate_ratio is 0",
            "set the ratio to the first rate / the last, such as 1e-6, or use `temper lr`",
        )
    if train.warmup_steps or train.warmup_fraction:
        yield Finding(
            "train.schedule is range and there is a warmup", "set train.warmup_steps and warmup_fraction to 0"
        )


def one_rank_has_no_peers(run: Run, ranks: int) -> Iterator[Finding]:
    """`none` is for one rank; anything else needs a strategy."""
    if run.parallel.strategy == "none" and ranks > 1:
        yield Finding(
            f"parallel.strategy is none and there are {ranks} ranks",
            "set parallel.strategy to ddp or zero1..zero3, or parallel.processes to 1",
        )


def fsdp_shards_floats(run: Run, ranks: int) -> Iterator[Finding]:
    """A 4-bit base is sharded by ZeRO-3 here; FSDP2 would shard its packed words under other names."""
    if run.parallel.strategy == "fsdp2" and run.adapter.kind == "qlora":
        yield Finding(
            "parallel.strategy is fsdp2 and adapter.kind is qlora", "use zero3 (or zero2) for qlora"
        )


def fsdp_has_no_loss_scaling(run: Run, ranks: int) -> Iterator[Finding]:
    """fp16 needs loss scaling, which replicas and ZeRO do."""
    if run.parallel.strategy == "fsdp2" and run.parallel.precision == "fp16":
        yield Finding("parallel.strategy is fsdp2 and parallel.precision is fp16", "use bf16 with fsdp2")


def offload_has_an_owner(run: Run, ranks: int) -> Iterator[Finding]:
    """Only ZeRO offloads, and only stage 3 has parameters to offload."""
    parallel = run.parallel
    if parallel.offload_optimizer and parallel.strategy not in ("zero1", "zero2", "zero3"):
        yield Finding(
            f"parallel.offload_optimizer is on and the strategy is {parallel.strategy}",
            "use zero1, zero2 or zero3, or turn offload_optimizer off",
        )
    if parallel.offload_parameters and parallel.strategy != "zero3":
        yield Finding(
            f"parallel.offload_parameters is on and the strategy is {parallel.strategy}",
            "use zero3, or turn offload_parameters off",
        )


def offload_steps_with_adamw(run: Run, ranks: int) -> Iterator[Finding]:
    """bitsandbytes' optimizers keep their own state on the device."""
    if run.parallel.offload_optimizer and run.train.optimizer not in ("adamw", "adafactor"):
        yield Finding(
            f"parallel.offload_optimizer is on and train.optimizer is {run.train.optimizer}",
            "use adamw with offload, or turn offload_optimizer off",
        )


def shards_break_matrices(run: Run, ranks: int) -> Iterator[Finding]:
    """Adafactor factors matrices by rows and columns, and Muon orthogonalises them; ZeRO hands out flat pieces."""
    wish = run.train.optimizer
    if wish in ("adafactor", "muon") and run.parallel.strategy.startswith("zero"):
        yield Finding(
            f"train.optimizer is {wish} and parallel.strategy is {run.parallel.strategy}",
            f"ZeRO flattens the matrices that {wish} needs whole: use adamw or adamw_8bit, or strategy none or ddp",
        )


def eight_bit_states_need_whole_tensors(run: Run, ranks: int) -> Iterator[Finding]:
    """torch's FSDP2 hands out DTensors, which bitsandbytes' kernels do not take; Muon needs whole matrices."""
    if run.parallel.strategy == "fsdp2" and run.train.optimizer not in ("adamw", "adafactor"):
        yield Finding(
            f"parallel.strategy is fsdp2 and train.optimizer is {run.train.optimizer}", "use adamw with fsdp2"
        )


def fp16_needs_cuda(run: Run, ranks: int) -> Iterator[Finding]:
    """fp16 with loss scaling is an accelerator's precision."""
    if run.parallel.precision == "fp16" and run.parallel.device == "cpu":
        yield Finding("parallel.precision is fp16 and parallel.device is cpu", "use bf16 or fp32 on CPU")


def quantised_base_computes_in_sixteen_bits(run: Run, ranks: int) -> Iterator[Finding]:
    """ZeRO-3 shards a 4-bit base by its storage dtype, which must be the compute dtype."""
    if run.adapter.kind == "qlora" and run.parallel.strategy == "zero3" and run.parallel.precision == "fp32":
        yield Finding(
            "adapter.kind is qlora with zero3 in fp32",
            "use parallel.precision bf16: the 4-bit storage is sharded as 16-bit words",
        )


def quantised_base_is_pretrained(run: Run, ranks: int) -> Iterator[Finding]:
    """There is nothing to adapt in weights that were just drawn."""
    if run.model.init == "scratch" and run.adapter.kind != "full":
        yield Finding(
            f"model.init is scratch and adapter.kind is {run.adapter.kind}",
            "use adapter.kind full, or init pretrained",
        )


def k_is_sampled(run: Run, ranks: int) -> Iterator[Finding]:
    """pass@k is undefined for fewer samples than k."""
    if run.evaluate.benchmark and max(run.evaluate.k) > run.evaluate.samples:
        yield Finding(
            f"evaluate.k asks for pass@{max(run.evaluate.k)} and evaluate.samples is {run.evaluate.samples}",
            f"set evaluate.samples to at least {max(run.evaluate.k)}",
        )


def samples_differ(run: Run, ranks: int) -> Iterator[Finding]:
    """Greedy decoding gives the same text every time."""
    if run.evaluate.benchmark and run.evaluate.temperature == 0 and run.evaluate.samples > 1:
        yield Finding(
            f"evaluate.samples is {run.evaluate.samples} and evaluate.temperature is 0",
            "samples would all be equal: set a temperature such as 0.2, or samples to 1",
        )
    looped = run.train.evaluate_every and run.evaluate.in_loop_samples > 1
    if run.evaluate.benchmark and run.evaluate.temperature == 0 and looped:
        yield Finding(
            f"evaluate.in_loop_samples is {run.evaluate.in_loop_samples} and evaluate.temperature is 0",
            "samples would all be equal: set a temperature such as 0.2, or in_loop_samples to 1",
        )


def evaluation_has_tasks(run: Run, ranks: int) -> Iterator[Finding]:
    """In-loop evaluation needs a benchmark."""
    if run.train.evaluate_every and not run.evaluate.benchmark:
        yield Finding(
            f"train.evaluate_every is {run.train.evaluate_every} and evaluate.benchmark is empty",
            "name a benchmark (basics needs no download), or set evaluate_every to 0",
        )


def metric_is_measured(run: Run, ranks: int) -> Iterator[Finding]:
    """Early stopping and keep-best need a number that is logged."""
    if run.data is None:
        return
    name = run.checkpoint.metric
    held_out = bool(run.data.validation or run.data.validation_fraction)
    measured = held_out and run.train.validate_every
    wanted = run.train.early_stop_patience > 0
    of_classes = classes.MEASURED if run.model.head != "language" else ()
    if name in of_classes:
        name = "validation_loss"  # measured with it
    if name not in ("validation_loss", *LOGGED) and not name.startswith("pass@"):
        yield Finding(
            f"checkpoint.metric is {name}, which is never logged",
            f"watch validation_loss, a pass@k, or one of {', '.join(LOGGED)}",
        )
    if name == "validation_loss" and run.checkpoint.export == "best" and not held_out:
        yield Finding(
            "checkpoint.export is best by validation_loss, which is never measured",
            "set data.validation or data.validation_fraction, or checkpoint.export to last",
        )
    if name == "validation_loss" and wanted and not measured:
        yield Finding(
            "train.early_stop_patience watches validation_loss, which is never measured",
            "set data.validation (or data.validation_fraction) and train.validate_every",
        )
    if name.startswith("pass@") and not run.train.evaluate_every:
        yield Finding(
            f"checkpoint.metric is {name} and train.evaluate_every is 0", "set train.evaluate_every"
        )
    k = name[5:].partition("/")[0] if name.startswith("pass@") else ""
    if k.isdigit() and int(k) > run.evaluate.in_loop_samples:
        yield Finding(
            f"checkpoint.metric is {name} and evaluate.in_loop_samples is {run.evaluate.in_loop_samples}",
            f"set evaluate.in_loop_samples to at least {k}",
        )
    elif k.isdigit() and int(k) not in (run.evaluate.k if int(k) > 1 else (1, *run.evaluate.k)):
        yield Finding(
            f"checkpoint.metric is {name} and evaluate.k is {list(run.evaluate.k)}", f"add {k} to evaluate.k"
        )


def best_is_kept(run: Run, ranks: int) -> Iterator[Finding]:
    """The best checkpoint can only be exported if it is still there at the end."""
    if run.data is not None and run.checkpoint.export == "best" and not run.checkpoint.keep_best:
        yield Finding(
            "checkpoint.export is best and checkpoint.keep_best is 0", "set checkpoint.keep_best to 1"
        )


def nothing_saved_cannot_be_exported(run: Run, ranks: int) -> Iterator[Finding]:
    """The result is a copy of a checkpoint."""
    checkpoint = run.checkpoint
    if run.data is not None and not (checkpoint.at_end or checkpoint.every) and checkpoint.export != "none":
        yield Finding(
            "checkpoint.at_end is false and checkpoint.every is 0, so there is nothing to export",
            "set checkpoint.export to none, or save something",
        )


def rows_fit_the_model(run: Run, ranks: int) -> Iterator[Finding]:
    """Positions beyond the model's context were never trained."""
    known = shape(run.model.path)
    found = beyond_context(run, known.context) if known is not None and known.context else None
    if found is not None:
        yield found


def beyond_context(run: Run, context: int) -> Finding | None:
    """Whether a row, with what an adapter puts before it, is longer than a model's context of so many tokens."""
    before = run.adapter.virtual_tokens if run.adapter.kind in adapters.VIRTUAL else 0
    if run.data is None or run.data.max_length + before <= context:
        return None
    behind = f" behind {before} virtual tokens" if before else ""
    left = context - before
    return Finding(
        f"data.max_length {run.data.max_length}{behind} is longer than the model's context of {context}",
        f"set data.max_length to {left} or less" if left > 0 else "set adapter.virtual_tokens to a few dozen",
    )


def model_folder_exists(run: Run, ranks: int) -> Iterator[Finding]:
    """A path that looks local and is not there is a typo, not a hub id."""
    if run.data is None and run.evaluate.server.url:
        return  # no more than a name, which the server knows
    path = run.model.path
    looks_local = path.startswith((".", "/", "~")) or path.count("/") > 1
    if looks_local and not Path(path).expanduser().exists():
        yield Finding(
            f"there is no model folder {path}", "check model.path (relative to the working directory)"
        )


def attention_runs_on_the_device(run: Run, ranks: int) -> Iterator[Finding]:
    """FlashAttention's kernels are CUDA's."""
    if run.parallel.device == "cpu" and run.model.attention.startswith("flash"):
        yield Finding(
            f"model.attention is {run.model.attention} and parallel.device is cpu", "use sdpa on CPU"
        )


def judgement_has_a_benchmark(run: Run, ranks: int) -> Iterator[Finding]:
    """Judgement needs tasks."""
    if not run.evaluate.benchmark:
        yield Finding("evaluate.benchmark is empty", "name one, e.g. --set evaluate.benchmark=basics")


OF_TRAINING: tuple[Rule, ...] = (
    restarts_resume,
    batch_divides,
    range_rises_from_somewhere,
    one_rank_has_no_peers,
    fsdp_shards_floats,
    fsdp_has_no_loss_scaling,
    offload_has_an_owner,
    offload_steps_with_adamw,
    shards_break_matrices,
    eight_bit_states_need_whole_tensors,
    optimizers.settings_suit_the_optimizer,
    quantised_base_computes_in_sixteen_bits,
    layers.offloaded_inputs_are_all_that_is_kept,
    layers.compiled_layers_have_whole_weights,
    layers.float8_is_of_trained_weights,
    sequence.groups_are_whole,
    sequence.heads_are_shared_out,
    sequence.attention_is_its_own,
    sequence.noise_needs_whole_samples,
    adapters.keys_suit_the_kind,
    adapters.start_suits_the_base,
    adapters.dora_knows_its_base,
    adapters.new_tokens_have_whole_rows,
    adapters.budget_shrinks,
    adapters.virtual_tokens_come_first,
    classes.labels_suit_the_head,
    classes.classes_write_nothing,
    classes.heads_are_whole,
    evaluation_has_tasks,
    metric_is_measured,
    best_is_kept,
    nothing_saved_cannot_be_exported,
    rows_fit_the_model,
    served.the_loop_asks_its_own_model,
)
RULES: tuple[Rule, ...] = (
    model_folder_exists,
    fp16_needs_cuda,
    quantised_base_is_pretrained,
    k_is_sampled,
    samples_differ,
    attention_runs_on_the_device,
    served.url_is_an_address,
    served.key_is_named,
    served.api_suits_the_tasks,
    served.body_leaves_the_question,
    asked.shots_have_a_source,
    asked.prefix_is_continued,
    asked.only_a_chat_has_turns,
)
OF_JUDGING: tuple[Rule, ...] = (
    judgement_has_a_benchmark,
    served.one_process_asks,
    classes.classes_are_not_judged,
)


def _any_of(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)
