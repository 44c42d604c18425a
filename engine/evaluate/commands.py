"""The verbs of judgement: score, rescore, benchmark."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import click

from engine.errors import BUG, WishError
from engine.evaluate import libraries
from engine.evaluate.benchmarks import BENCHMARKS, basics, find, fingerprint
from engine.evaluate.benchmarks.sources import SOURCES
from engine.evaluate.judge import Court, judge
from engine.evaluate.origin import Origin
from engine.evaluate.rescore import Wanted
from engine.evaluate.rescore import rescore as rescore_answers
from engine.evaluate.results import write_lines
from engine.evaluate.score import Score
from engine.evaluate.score import score as score_samples
from engine.generate import Thinking
from engine.sandbox import MODES, Limits

NAME = click.Choice(list(BENCHMARKS))
DEFAULT = Limits()


class Ks(click.ParamType):
    """A list such as `1,10,100`."""

    name = "K,..."

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Whole numbers above 0, ascending and each once."""
        if isinstance(value, tuple):
            return value
        try:
            ks = sorted({int(part) for part in str(value).split(",")})
        except ValueError:
            ks = [0]
        if ks[0] < 1:
            self.fail(f"{value!r} is not a list of whole numbers above 0, such as 1,10", param, ctx)
        return tuple(ks)


def court_options(command: Callable[..., None], *, default: Limits | None = DEFAULT) -> Callable[..., None]:
    """The options that say how programs are judged; without a default, one not given is None."""
    told = default is not None
    options = [
        click.option("--workers", type=click.IntRange(1), default=(os.cpu_count() or 1) if told else None,
                     show_default=told,
                     help="Programs run side by side."),
        click.option("--level", type=click.Choice(["full", "user", "process"]),
                     help="Least isolation accepted." + "  [default: the best this kernel grants]" * told),
        click.option("--mode", type=click.Choice(MODES), default="reused" if told else None, show_default=told,
                     help="A jail cleaned between programs, or a fresh one for each."),
        click.option("--engine", type=click.Choice(["runsc", "podman"]),
                     help="Run each program in a container of this outer engine."),
        click.option("--preload", multiple=True, metavar="MODULE",
                     help="A module programs may import besides the standard library; may be repeated."),
        click.option("--cpu-seconds", type=click.FloatRange(0, min_open=True),
                     default=default and default.cpu_seconds, show_default=told,
                     help="CPU time of one program: this limit decides."),
        click.option("--wall-seconds", type=click.FloatRange(0, min_open=True),
                     default=default and default.wall_seconds, show_default=told,
                     help="Wall time of one program, against sleepers."),
        click.option("--memory-mb", type=click.IntRange(1), default=default and default.memory_mb,
                     show_default=told, help="Memory of one program, in MiB."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def _court(
    *, workers: int, level: str | None, mode: str, preload: tuple[str, ...], engine: str | None, **limits: Any
) -> Court:
    return Court(Limits(**limits), level, workers, mode, preload, engine)


@click.command()
@click.option("--benchmark", type=NAME, required=True, help="Whose tests judge the samples.")
@click.option("--data", help="The benchmark's file or hub id, where it is not built in.")
@click.option("--split", default="test", show_default=True, help="Of the benchmark: test, or another it has.")
@click.option("--samples", required=True, help="JSONL (or .jsonl.gz); - is standard input.")
@click.option("--k", type=Ks(), default="1", show_default=True, help="The k of pass@k, such as 1,10,100.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for results.jsonl and summary.json.",
)
@click.option(
    "--efficiency",
    type=click.IntRange(3),
    metavar="N",
    help="Run passing programs and their references N times more, and compare time and memory.",
)
@click.option(
    "--static", is_flag=True, help="Tell length, complexity and a linter's findings of the programs."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@court_options
def score(
    benchmark: str,
    data: str | None,
    split: str,
    samples: str,
    k: tuple[int, ...],
    out: Path | None,
    efficiency: int | None,
    static: bool,
    as_json: bool,
    **court: Any,
) -> None:
    """Run samples that exist already and print pass@k."""
    scored = score_samples(
        benchmark,
        data,
        samples,
        split=split,
        k=k,
        court=_court(**court),
        out=out,
        efficiency=efficiency or 0,
        static=static,
        progress=_live("scored"),
    )
    click.echo(json.dumps(scored.as_json(), indent=1) if as_json else _table(scored))
    for note in scored.notes():
        click.echo(f"note: {note}", err=True)
    scored.found.require_verdicts()


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--data", help="The benchmark's file or hub id.  [default: as then]")
@click.option("--split", help="Of the benchmark.  [default: as then]")
@click.option("--k", type=Ks(), help="The k of pass@k, such as 1,10,100.  [default: as then]")
@click.option("--thinking", help="auto, keep, or two tags such as '<plan> </plan>'.  [default: as then]")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the new results.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of old and new figures.")
@partial(court_options, default=None)
def rescore(
    folder: Path,
    data: str | None,
    split: str | None,
    k: tuple[int, ...] | None,
    thinking: str | None,
    out: Path | None,
    as_json: bool,
    **terms: Any,
) -> None:
    """Judge the answers in FOLDER (evaluations/NAME of a run) anew, without their model.

    Today's extraction is applied; limits and isolation are those of then, unless given. The results in FOLDER
    are replaced; all answers and verdicts stay in its journals.
    """
    wanted = Wanted(data, split, k, _rule(thinking) if thinking else None, partial(_other_terms, terms))
    found = rescore_answers(folder, wanted, out=out, progress=_live("judged"))
    click.echo(json.dumps(found.as_json(), indent=1) if as_json else "\n".join(found.lines()))
    found.now.found.require_verdicts()


def _rule(text: str) -> Thinking:
    tags = text.split()
    if text in ("auto", "keep"):
        return Thinking.of(text)
    if len(tags) != 2 or tags[0] == tags[1]:
        raise WishError(f"--thinking {text!r} is no rule", "give auto, keep, or two tags as '<plan> </plan>'")
    return Thinking.of((tags[0], tags[1]))


def _other_terms(terms: Mapping[str, Any], court: Court) -> Court:
    """The terms of then, with those given now in their place."""
    given = {name: value for name, value in terms.items() if value not in (None, ())}
    limits = {name: given.pop(name) for name in ("cpu_seconds", "wall_seconds", "memory_mb") if name in given}
    return replace(court, limits=replace(court.limits, **limits), **given)


def _live(what: str) -> Callable[[int, int], None] | None:
    """A counter on the terminal; nothing where nobody watches."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, whole: int) -> None:
        if done == whole:
            click.echo("\r\033[K", nl=False, err=True)
        elif done % 10 == 0:
            click.echo(f"\r{what} {done:,} of {whole:,}", nl=False, err=True)

    return show


def _table(scored: Score) -> str:
    found, seconds = scored.found, scored.seconds
    speed = (found.figures.samples + found.unscored) / seconds if seconds else 0.0
    tail = f"  {seconds:.1f} s, {speed:.0f} programs/s, isolation {found.isolation}"
    return "\n".join([*found.lines(), tail, *scored.beyond.lines()])


@click.group()
def benchmark() -> None:
    """Look into the benchmarks."""


@benchmark.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def list_benchmarks(as_json: bool) -> None:
    """Name them, their licences and sources, and the known files with tasks, size and SHA-256."""
    if as_json:
        click.echo(json.dumps([_known(name) for name in BENCHMARKS], indent=1))
        return
    for one in map(_known, BENCHMARKS):
        click.echo(f"{one['name']:15} {one['about']}")
        if one["origin"]:
            click.echo(f"{'':15} {', '.join(filter(None, (one['licence'], one['origin'])))}")
        for file in one["files"]:
            told = f"{file['tasks']:,} tasks, {file['size']:,} bytes, sha256 {file['sha256'][:12]}"
            click.echo(f"{'':15} {file['name']}: {told}")


def _known(name: str) -> dict[str, Any]:
    """What is known of a benchmark before any file of it is read."""
    module, source = BENCHMARKS[name], SOURCES.get(name)
    hub_id = getattr(module, "HUB_ID", None)
    return {
        "name": name,
        "about": (module.__doc__ or "").splitlines()[0],
        "licence": source.licence if source else None,
        "origin": source.origin if source else hub_id,
        "hub_id": hub_id,
        "files": [asdict(file) for file in source.files] if source else [],
    }


def task_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that choose tasks."""
    for option in (
        click.option("--limit", type=click.IntRange(1), help="First this many tasks only."),
        click.option(
            "--split", default="test", show_default=True, help="Of the benchmark: test, or another it has."
        ),
        click.option("--data", help="The benchmark's file or hub id, where it is not built in."),
        click.argument("name", type=NAME),
    ):
        command = option(command)
    return command


@benchmark.command()
@task_options
@click.option("--task", "task_id", help="Show this task whole.")
def show(name: str, data: str | None, split: str, limit: int | None, task_id: str | None) -> None:
    """List a benchmark's tasks, or print one with its reference."""
    tasks = find(name).load(data, split=split, limit=limit)
    if task_id is None:
        for task in tasks:
            click.echo(f"{task.id:32} {task.entry_point:28} {task.group}".rstrip())
        click.echo(f"{len(tasks)} tasks, sha256 {fingerprint(tasks)}")
        _tell_origin(Origin.of(name, data))
        return
    chosen = next((task for task in tasks if task.id == task_id), None)
    if chosen is None:
        raise WishError(
            f"{name} has no task {task_id!r} in split {split!r}", f"`temper benchmark show {name}` lists them"
        )
    click.echo(chosen.prompt + chosen.reference)
    runs = [f"# {run.stdin!r} -> {run.expected!r}" for run in chosen.runs]
    calls = [f"# {call.expression} == {call.expected!r}" for call in chosen.calls]
    click.echo(chosen.test or "\n".join([*calls, *runs]))


def _tell_origin(origin: Origin) -> None:
    """What was read, and whether it is a known file."""
    if origin.revision:
        click.echo(f"{origin.source} at revision {origin.revision}")
    if origin.sha256 is not None:
        click.echo(f"{origin.source}: {origin.size:,} bytes unpacked, sha256 {origin.sha256}")
    if origin.pinned:
        source = SOURCES[origin.benchmark]
        click.echo(f"matches the pinned {origin.pinned} of {source.origin}, {source.licence}")
    if origin.note:
        click.echo(f"note: {origin.note}", err=True)


@benchmark.command()
@click.argument("name", type=NAME)
@click.option("--split", default="train", show_default=True, help="train, validation or test.")
@click.option("--count", type=click.IntRange(1), help="Rows; needed for train, which has no end.")
@click.option("--seed", default=0, show_default=True, help="Of the training rows.")
@click.option("--data", help="The benchmark's file or hub id, where it is not built in.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="JSONL file to write."
)
def export(name: str, split: str, count: int | None, seed: int, data: str | None, out: Path) -> None:
    """Write rows of prompt and completion as JSONL: training rows, or tasks with their references."""
    if split == "train" and name == "basics":
        if count is None:
            raise WishError("the training rows of basics have no end", "say how many with --count")
        write_lines(out, (dict(row) for row in basics.training_rows(count, seed=seed)))
    else:
        tasks = find(name).load(data, split=split)
        rows = ({"id": t.id, "prompt": t.prompt, "completion": t.reference, "group": t.group} for t in tasks)
        write_lines(out, islice(rows, count))
    with out.open("rb") as file:
        click.echo(f"{sum(1 for _ in file):,} rows in {out}")


@benchmark.command()
@task_options
@court_options
def validate(name: str, data: str | None, split: str, limit: int | None, **court: Any) -> None:
    """Prove the benchmark: every reference must pass, every empty answer must fail."""
    module = find(name)
    tasks = module.load(data, split=split, limit=limit)
    terms = _court(**court)
    lacking = libraries.missing(tasks, terms)
    tasks = libraries.judged(tasks, lacking)
    terms = libraries.opened(terms, tasks)
    if lacking:
        click.echo(libraries.told(lacking))
    wrong: list[str] = []
    answered = [task for task in tasks if task.reference]
    if len(answered) < len(tasks):
        click.echo(f"{len(tasks) - len(answered)} of {len(tasks)} tasks come without a reference")
    for what, chosen, wanted in (("reference", answered, True), ("empty", tasks, False)):
        programs = [
            (task, module.program(task, task.reference if what == "reference" else "")) for task in chosen
        ]
        passed = 0
        for index, verdict in judge(module, len(programs), programs.__getitem__, terms):
            passed += verdict.passed
            if verdict.passed != wanted or verdict.name == "infra":
                wrong.append(f"{chosen[index].id}: the {what} answer is {verdict.name} ({verdict.detail})")
        click.echo(f"{what:10} {passed} of {len(chosen)} passed, wanted {len(chosen) if wanted else 0}")
    if not answered:
        click.echo("note: no reference was run, so this does not show that a right answer passes", err=True)
    for line in wrong:
        click.echo(line, err=True)
    if wrong:
        sys.exit(BUG)
