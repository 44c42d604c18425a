"""Who is judged: the model a Run starts from, the one it trained or trains, or one that a server answers for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from engine import protocol
from engine.config import Adapter, Run
from engine.data import load_tokenizer
from engine.dist import World
from engine.errors import WishError
from engine.evaluate.benchmarks import find
from engine.evaluate.efficiency import demand_python
from engine.evaluate.job import Settings
from engine.evaluate.libraries import Missing, judged, missing
from engine.evaluate.origin import Origin
from engine.evaluate.question import bare, continuation, opening, questions
from engine.evaluate.run import Generator, Progress, evaluate, plan
from engine.evaluate.shots import Shot, shots
from engine.evaluate.summary import Summary
from engine.evaluate.task import Ask, Task
from engine.generate import Endpoint, Generation, Request, ask_server, generate, rehearse


def evaluate_run(
    run: Run, world: World, *, base: bool, merged: Path | None = None, progress: Progress | None = None
) -> Summary | None:
    """Judge a Run's result, the model it starts from, or a served one (a collective); the summary is rank 0's.

    Args:
        run: the Run; one without a data section trains nothing, so its model is judged as it is.
        world: the ranks.
        base: judge the starting point of a Run that trains.
        merged: judge this model instead, made of the Run's adapter and its base.
        progress: told (phase, done, all) on rank 0.

    Raises:
        WishError: nothing trained yet, or the server refuses what it is asked.
    """
    wish = run.evaluate
    assert wish.benchmark is not None, "the rules demand a benchmark"
    tasks = find(wish.benchmark).load(wish.data, split=wish.split, limit=wish.limit)
    if wish.efficiency or wish.static:
        demand_python(tasks)
    lacking = _lacking(tasks, run, world)
    tasks = judged(tasks, lacking)
    examples = shots(wish, tasks)
    if wish.server.url:
        subject = _served(run, examples, base=base)
    else:
        subject = _held(run, world, examples, base=base, merged=merged)
    return evaluate(
        tasks,
        wish.benchmark,
        Settings.of(run, model=subject.name, shots=examples),
        generator=subject.generator,
        folder=run.folder / protocol.EVALUATIONS / f"{wish.benchmark}-{wish.split}{subject.ending}",
        rank=world.rank,
        world_size=world.size,
        barrier=world.barrier,
        ask=subject.ask,
        chat=subject.chat,
        origin=Origin.of(wish.benchmark, wish.data),
        progress=progress if world.first else None,
        not_judged=lacking,
    )


def _lacking(tasks: Sequence[Task], run: Run, world: World) -> Missing:
    """What the tasks lack where they are judged, which is on rank 0 (a collective, where any needs something)."""
    if not any(task.requires for task in tasks):
        return {}
    return world.share(missing(tasks, Settings.of(run, model="").court) if world.first else None)


@dataclass(frozen=True, slots=True)
class _Subject:
    """A model as an evaluation needs it: its name, how it is asked, and what its folder's name ends in."""

    name: str
    generator: Generator
    ask: Ask
    chat: bool
    ending: str


def _held(run: Run, world: World, examples: Sequence[Shot], *, base: bool, merged: Path | None) -> _Subject:
    """The model whose weights lie here."""
    untouched = base or run.data is None
    weights, tokenizer, name = _weights(run, world, untouched=untouched, merged=merged)
    ask, chat = questions(run, tokenizer, examples)
    generator = _generator(run, world, weights, tokenizer)

    def draw(requests: Sequence[Request]) -> Iterator[Generation]:
        # Each rank holds the whole model, so one that owes nothing keeps nobody waiting, and needs no weights.
        return generator(requests) if requests else iter(())

    return _Subject(name, draw, ask, chat, ending="-merged" if merged else "-base" if untouched else "")


def _served(run: Run, examples: Sequence[Shot], *, base: bool) -> _Subject:
    """The model behind `evaluate.server`; only infilling needs a tokenizer, for its sentinels."""
    if base:
        raise WishError(
            f"--base judges the model the run starts from, and {run.evaluate.server.url} answers for its own",
            "leave out --base, or set evaluate.server.url to null",
        )
    wish, endpoint = run.evaluate, Endpoint.of(run)
    chat = endpoint.api == "chat"
    ask: Ask
    if wish.benchmark == "infilling":
        ask, _ = questions(run, load_tokenizer(run))
    elif chat:
        endpoint = replace(endpoint, opening=opening(wish, examples))
        ask = bare(wish)
    else:
        ask = continuation(wish, examples)
    return _Subject(endpoint.name, partial(ask_server, endpoint), ask, chat, ending="-server")


@dataclass(frozen=True, slots=True)
class InLoop:
    """In-training evaluation for the loop; the same tasks, asked of whatever model it is given."""

    run: Run
    world: World
    tasks: Sequence[Task]
    lacking: Missing
    examples: Sequence[Shot]
    origin: Origin

    def __call__(self, model: Any, tokenizer: Any, step: int) -> dict[str, float]:
        """Metrics of a whole model (a collective); the same on every rank."""
        run, world = self.run, self.world
        ask, chat = questions(run, tokenizer, self.examples)
        summary = evaluate(
            self.tasks,
            str(run.evaluate.benchmark),
            self._settings(f"{run.output} step {step}"),
            generator=_generator(run, world, lambda: model, tokenizer),
            folder=run.folder / protocol.EVALUATIONS / protocol.IN_LOOP / f"step-{step:06d}",
            rank=world.rank,
            world_size=world.size,
            barrier=world.barrier,
            ask=ask,
            chat=chat,
            not_judged=self.lacking,
            origin=self.origin,
        )
        return world.share(summary.metrics() if summary is not None else None)

    def rehearse(self, model: Any, tokenizer: Any) -> None:
        """Take the memory of this rank's largest batch of samples; nothing is executed."""
        ask, _ = questions(self.run, tokenizer, self.examples)
        items = plan(self.tasks, self._settings("rehearsal"), ask)[self.world.rank :: self.world.size]
        requests = [item.request for item in items]
        rehearse(model, tokenizer, requests, batch=self.run.evaluate.batch, device=self.world.device)

    def _settings(self, name: str) -> Settings:
        return Settings.of(self.run, model=name, shots=self.examples, in_loop=True)


def in_loop(run: Run, world: World) -> InLoop:
    """In-training evaluation of a Run's benchmark (a collective)."""
    wish = run.evaluate
    assert wish.benchmark is not None, "the rules demand a benchmark"
    tasks = find(wish.benchmark).load(wish.data, split="validation", limit=wish.in_loop_limit)
    lacking = _lacking(tasks, run, world)
    tasks = judged(tasks, lacking)
    return InLoop(run, world, tasks, lacking, shots(wish, tasks), Origin.of(wish.benchmark, wish.data))


def _weights(
    run: Run, world: World, *, untouched: bool, merged: Path | None
) -> tuple[Callable[[], Any], Any, str]:
    """What loads the model, its tokenizer, and its name in the journals."""
    if merged is not None:
        plain = run.model_copy(update={"adapter": Adapter(kind="full")})
        name = f"{merged} {_identity(merged)} {_arithmetic(plain)}"
        return partial(_load, plain, world, path=str(merged)), load_tokenizer(run, str(merged)), name
    if untouched:
        # The starting point is judged in the Run's precision, as training would see it.
        name = f"{run.model.path} {run.model.revision or ''} {_identity(Path(run.model.path))} {_arithmetic(run)}"
        # Named as a folder, so that words the adapter makes tokens of stay what the untouched model knows them as.
        tokenizer = load_tokenizer(run, run.model.tokenizer or run.model.path)
        return partial(_load, run, world), tokenizer, name
    full = run.adapter.kind == "full"
    result = run.folder / (protocol.MODEL if full else protocol.ADAPTER)
    if not result.is_dir():
        raise WishError(
            f"{result} is not there yet", "run `temper train` first, or judge the start with --base"
        )
    name = f"{result} {_identity(result)} {_arithmetic(run)}"
    tokenizer = load_tokenizer(run, str(result))
    if full:
        return partial(_load, run, world, path=str(result)), tokenizer, name
    return partial(_load, run, world, adapter=result), tokenizer, name


def _load(run: Run, world: World, *, path: str | None = None, adapter: Path | None = None) -> Any:
    # Imported here: transformers' modelling takes seconds, and an evaluation with nothing to draw needs none of it.
    from engine.model import load_model, with_adapter

    model = load_model(run, world.device, path=path)
    return (with_adapter(model, adapter).to(world.device) if adapter else model).eval()


def _identity(folder: Path) -> str:
    """Size and time of the weights: answers of an earlier training are not taken for this one's."""
    files = sorted(folder.glob("*.safetensors"))
    return " ".join(f"{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files)


def _arithmetic(run: Run) -> str:
    """How the weights are held and multiplied: the same ones in other numbers answer differently."""
    adapter = run.adapter
    held = f"{adapter.quant} double={adapter.double_quant}" if adapter.kind == "qlora" else "whole"
    return f"{run.parallel.precision} {run.model.attention} {held}"


def _generator(run: Run, world: World, weights: Callable[[], Any], tokenizer: Any) -> Generator:
    def draw(requests: Sequence[Request]) -> Iterator[Generation]:
        return generate(weights(), tokenizer, requests, batch=run.evaluate.batch, device=world.device)

    return draw
