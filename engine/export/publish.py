"""A merged model under its name, once it has been written, opened again and measured; nothing there otherwise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from engine import protocol
from engine.checkpoint import sync_folder, sync_tree, write_weights
from engine.config import VIRTUAL, Adapter, Run
from engine.data import Batch, end_of_turn, load_tokenizer, prepare
from engine.dist import World
from engine.errors import PreflightError, WishError
from engine.evaluate.compare import Comparison, compare
from engine.evaluate.subject import evaluate_run
from engine.export.bound import Bound, Divergence, divergence
from engine.export.merge import merge
from engine.model import load_model, with_adapter

RECORD = "export.json"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What to export, and what it must show."""

    target: Path
    """The folder to write."""
    tokens: int
    """Trained tokens on which the logits are compared."""
    bound: Bound
    benchmark: bool = False
    """Whether the Run's benchmark is drawn from both and compared."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A merged model that stands under its name, and what was measured of it."""

    folder: Path
    divergence: Divergence
    bound: Bound
    rows: str
    """Which rows the logits were compared on."""
    comparison: Comparison | None

    def as_json(self) -> dict[str, Any]:
        """What `export.json` holds besides the Run's facts."""
        judged = self.comparison
        return {
            "rows": self.rows,
            "kl": asdict(self.divergence),
            "bound": asdict(self.bound),
            "benchmark": None
            if judged is None
            else {"name": judged.a.benchmark, "sha256": judged.a.benchmark_sha256, **judged.result.as_json()},
        }


def export_merged(run: Run, wish: Wish, world: World, say: Say) -> Exported:
    """Merge a Run's adapter into its base, write the model aside, measure it, and give it its name.

    Args:
        run: the Run that trained the adapter, in its folder.
        wish: where to, and what must hold.
        world: this process, alone.
        say: told each finding as a line.

    Raises:
        WishError: nothing to merge, the target is taken, or the rows to compare on are not there.
        PreflightError: the merged model is not what was trained, within the bounds; nothing is left of it.
    """
    adapter = _adapter(run, wish.target)
    with _aside(wish.target) as partial:
        tokenizer = load_tokenizer(run, str(adapter))
        # The rows first: where they are missing, nothing need be merged to know it.
        rows, batches = _rows(run, tokenizer)
        _write(run, adapter, partial, tokenizer, world)
        say(f"{partial.name}: written, opened again: names, shapes and values are the model's")
        found = _compared(run, adapter, partial, batches, wish, world)
        say(_told(found, rows))
        _demand_within(found, wish.bound)
        comparison = _judged(run, partial, world) if wish.benchmark else None
        if comparison is not None:
            say(_told_benchmark(comparison))
            demand_same_score(comparison)
        exported = Exported(wish.target, found, wish.bound, rows, comparison)
        record = _origin(run) | exported.as_json()
        (partial / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        sync_tree(partial)
        partial.rename(wish.target)
        sync_folder(wish.target.parent)
    return exported


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """A new folder beside the target to write into; what is still there after the block goes."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of an export that was killed
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise WishError(
            f"{target} cannot be written: {error.strerror}", "name a folder that can by --to"
        ) from None
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _adapter(run: Run, target: Path) -> Path:
    """The adapter's folder, where there is one to merge and a free name to merge it to."""
    if run.adapter.kind == "full":
        raise WishError(
            f"adapter.kind of {run.folder} is full, so there is no adapter to merge",
            f"its result is a whole model already: {run.folder / protocol.MODEL}",
        )
    if run.model.head != "language":
        raise WishError(
            f"model.head of {run.folder} is {run.model.head}, and only language models are merged",
            "PeftModel.from_pretrained opens the adapter, with its head, over the base",
        )
    if run.adapter.kind in VIRTUAL:
        raise WishError(
            f"adapter.kind of {run.folder} is {run.adapter.kind}, whose virtual tokens are no part of any weight",
            "PeftModel.from_pretrained opens the adapter over the base, and so does `temper evaluate`",
        )
    folder = run.folder / protocol.ADAPTER
    if not folder.is_dir():
        raise WishError(f"{folder} is not there", "run `temper train` to its end first")
    if target.exists():
        raise WishError(f"{target} is there already", "remove it, or name another folder by --to")
    return folder


def _rows(run: Run, tokenizer: Any) -> tuple[str, Iterator[Batch]]:
    """The Run's own rows, one at a time: those held out, or where there are none those trained on."""
    train = run.train.model_copy(update={"micro_batch": 1})
    prepared = prepare(run.model_copy(update={"train": train}), tokenizer)
    if prepared.validation:
        return "validation", iter(prepared.validation)
    steps = range(prepared.train.steps_per_epoch)
    return "training", chain.from_iterable(prepared.train.micro_batches(step) for step in steps)


def _write(run: Run, adapter: Path, partial: Path, tokenizer: Any, world: World) -> None:
    """Merge, and write what `from_pretrained` takes; memory holds one model, which goes with this call."""
    model = merge(run, adapter, world.device)
    needed, free = sum(p.nbytes for p in model.parameters()), shutil.disk_usage(partial).free
    if free < needed:
        raise WishError(
            f"{partial.parent} has {free / 2**30:.2f} GiB free and the model takes {needed / 2**30:.2f}",
            "free space there, or name a folder elsewhere by --to",
        )
    turn = end_of_turn(tokenizer) if _learnt_chat(run) else None
    if turn is not None:
        # Whoever generates with it must stop where a turn ends, as `temper evaluate` does.
        model.generation_config.eos_token_id = sorted({tokenizer.eos_token_id, turn} - {None})
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    try:
        write_weights(partial, model, weights, tokenizer)
    except (OSError, SafetensorError) as error:
        raise WishError(f"{partial} cannot be written: {error}", "name a folder with room by --to") from None


def _learnt_chat(run: Run) -> bool:
    """Whether a source of the training held conversations, as its facts tell."""
    file = run.folder / protocol.FACTS
    facts = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return any(source["format"] == "messages" for source in facts.get("data", {}).get("sources", ()))


def _compared(
    run: Run, adapter: Path, folder: Path, batches: Iterator[Batch], wish: Wish, world: World
) -> Divergence:
    """Logits of the folder as it opens again against the adapter on its base, which for `qlora` has four bits."""
    trained = with_adapter(load_model(run, world.device), adapter).to(world.device).eval()
    merged = load_model(whole(run), world.device, path=str(folder)).eval()
    return divergence(trained, merged, batches, tokens=wish.tokens)


def whole(run: Run) -> Run:
    """The Run as it stands for a model of plain weights."""
    return run.model_copy(update={"adapter": Adapter(kind="full")})


def _demand_within(found: Divergence, bound: Bound) -> None:
    if not bound.holds(found):
        raise PreflightError(
            f"the merged model is not the one that was trained: KL {found.mean:.2g} nats a token and "
            f"{found.largest:.2g} at most, over {found.tokens:,} tokens, where {bound.mean:.2g} and "
            f"{bound.largest:.2g} are the bound; nothing was left of it",
            "use the adapter on its base, merge in a finer parallel.precision (--set), or move the bound by --max-kl",
        )


def _judged(run: Run, folder: Path, world: World) -> Comparison:
    """The Run's benchmark, the same draws from both, task by task."""
    for merged in (None, folder):
        summary = evaluate_run(run, world, base=False, merged=merged)
        assert summary is not None, "one process alone is rank 0"
        summary.found.require_verdicts()
    name = f"{run.evaluate.benchmark}-{run.evaluate.split}"
    place = run.folder / protocol.EVALUATIONS
    return compare(place / name, place / f"{name}-merged")


def demand_same_score(found: Comparison) -> None:
    """Raise PreflightError where chance does not explain the difference, whichever of the two is better."""
    result = found.result
    if result.low > 0 or result.high < 0:
        raise PreflightError(
            f"merged, {found.a.benchmark} gives {result.b:.2%} pass@1 and the adapter on its base {result.a:.2%}: the "
            f"difference, {result.low:+.2%} to {result.high:+.2%}, is more than chance; nothing was left of it",
            "use the adapter on its base, or merge in a finer parallel.precision (--set)",
        )


def _origin(run: Run) -> dict[str, Any]:
    return {
        "base": run.model.path,
        "revision": run.model.revision,
        "adapter": run.adapter.model_dump(mode="json"),
        "precision": run.parallel.precision,
        "run": str(run.folder),
    }


def _told(found: Divergence, rows: str) -> str:
    return (
        f"merged against adapter on base: KL {found.mean:.2g} nats a token, {found.largest:.2g} at most, "
        f"the same first choice {found.same_choice:.2%}; {found.tokens:,} tokens of {rows} rows"
    )


def _told_benchmark(found: Comparison) -> str:
    result = found.result
    return (
        f"{found.a.benchmark}, {result.tasks} tasks: pass@1 {result.b:.2%} merged, {result.a:.2%} adapter on base; "
        f"difference {result.low:+.2%} to {result.high:+.2%} (95 %); {found.same_programs} of {found.joined} programs "
        "are the same"
    )
