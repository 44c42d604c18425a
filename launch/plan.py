"""`temper plan`: tell what a run would do and need, and whether it fits, without starting it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from engine import errors
from launch.architecture import architecture
from launch.cluster import place as place_of
from launch.command import plan as launch_plan
from launch.fit import METHODS, Change, nearest
from launch.memory import GIB, MARGIN, Memory
from launch.outlook import Outlook, everywhere, outlook
from launch.states import counts
from launch.verbs import read

NEAREST = 3


@click.command()
@click.argument("run_file", metavar="RUN.yaml")
@click.option(
    "--set", "overrides", multiple=True, metavar="a.b=c", help="Override one value; may be repeated."
)
@click.option("--processes", type=int, metavar="N", help="Short for --set parallel.processes=N.")
@click.option("--on", "place", metavar="CLUSTER", help="Hardware such as 8xh100, or a cluster's YAML file.")
@click.option("--model-config", metavar="FILE", help="config.json of a model that is not on this machine.")
@click.option(
    "--measured", "past", metavar="FOLDER", help="Run folder whose logged speed replaces the estimate."
)
@click.option("--fit", is_flag=True, help="Search settings that fit, and print the fastest as YAML.")
@click.option("--script", is_flag=True, help="Print the script that starts the run, and nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan(
    run_file: str,
    overrides: tuple[str, ...],
    processes: int | None,
    place: str | None,
    model_config: str | None,
    past: str | None,
    fit: bool,
    script: bool,
    as_json: bool,
) -> None:
    """Tell what a run would do and need, and whether it fits, without starting it.

    Exit codes: 0 it fits, or no hardware was named; 2 a wish that cannot be met; 3 it does not fit.
    """
    if fit and place is None:
        raise errors.WishError("--fit needs to know the hardware", "add --on, e.g. --on 8xh100")
    loaded, overrides = read(run_file, overrides, processes)
    run, where = loaded.run, None if place is None else place_of(place)
    if where is not None and where.kind != "local" and script:
        from launch.submit import composed, shown

        print(shown(composed(run, str(place), "train")), end="")
        return
    launch = launch_plan(run, "train", run_file, overrides)
    if where is not None and where.size > 1:
        from launch.submit import composed

        launch = composed(run, str(place), "train").launch
        run = everywhere(run, where.size)
    found = outlook(
        run, launch, architecture(run, model_config), where.hardware(str(place)) if where else None, past
    )
    if script:
        print(found.launch.script, end="")
    elif as_json:
        print(json.dumps(as_data(found), indent=1))
    elif fit:
        print("\n".join(proposal(found)))
        sys.exit(errors.DONE if found.changes else errors.PREFLIGHT_FAILED)
    else:
        print("\n".join(told(found)))
    if found.fits is False:
        sys.exit(errors.PREFLIGHT_FAILED)


def told(found: Outlook) -> Iterator[str]:
    """The plan as a person reads it."""
    run, model = found.run, found.model
    count = counts(model, run.adapter)
    yield from _section("model")
    sizes = f"{_count(count.total)} weights, {_count(count.trained)} trained"
    yield f"  {run.model.path}: {model.shape.model_type}, {sizes}"
    yield f"  {run.adapter.kind}, {run.parallel.precision}, {run.parallel.strategy}{_offload(found)}"
    yield from _section("ranks and batch")
    yield from _batch(found)
    yield from _section("command")
    yield f"  {found.launch.line}"
    if found.launch.nodes > 1:
        yield "  (as node 0 would run it; each node's agent fills in its number, the head's address and its threads)"
    names = ", ".join(name for name, _ in found.launch.environment)
    yield f"  environment set: {names}"
    if found.secrets:
        yield f"  environment read where it is set: {', '.join(found.secrets)}"
    yield from _section("files")
    yield from (f"  {file}" for file in found.files)
    disk = f"disk for the run {_size(found.disk_bytes)}, {_free(run.folder)}"
    yield f"  one checkpoint {_size(found.checkpoint_bytes)}; {disk}"
    yield from _section("memory per GPU" if run.parallel.device != "cpu" else "memory per rank")
    yield from _memory(found)
    yield from _section("every strategy and method, same batch and ranks (GiB per GPU)")
    yield from _overview(found)
    yield from _section(
        "time (an estimate: expect to be off by up to a factor of two)" if _guessed(found) else "time"
    )
    yield from _time(found)
    yield from _verdict(found)


def _batch(found: Outlook) -> Iterator[str]:
    run, extent = found.run, found.extent
    train, ranks, sharing = run.train, run.parallel.processes, run.parallel.sequence
    groups = ranks // sharing
    micro = train.global_batch // (train.micro_batch * groups)
    length = run.data.max_length if run.data else 0
    nodes = found.launch.nodes
    each = f"{nodes} nodes x {found.launch.processes} = " if nodes > 1 else "1 node, "
    on = f" of {found.cluster.gpus} GPUs" if found.cluster else ""
    yield f"  {each}{ranks} rank{'s' * (ranks > 1)}{on}"
    who = f"{groups} group{'s' * (groups > 1)}" if sharing > 1 else f"{ranks} rank{'s' * (ranks > 1)}"
    parts = f"{who} x {micro} micro-batch{'es' * (micro > 1)} x {train.micro_batch} rows"
    yield f"  global batch {train.global_batch} rows = {parts} of at most {length} tokens"
    if sharing > 1:
        yield f"  {sharing} ranks share each row: {-(-length // sharing)} tokens of it on each"
    if extent.steps is None:
        yield f"  steps and tokens: {extent.why}"
        return
    steps = "" if train.steps else "at most "
    tokens = f"at most {extent.rows} rows and {_count(extent.tokens or 0)} tokens"
    yield f"  {steps}{extent.steps} steps, {tokens} ({extent.why})"


def _memory(found: Outlook) -> Iterator[str]:
    memory = found.memory
    for term in memory.terms:
        if term.size:
            yield f"  {term.name:<16}{_size(term.size):>12}  {term.size / memory.tensors:4.0%}"
    if memory.context:
        yield f"  {'context':<16}{_size(memory.context):>12}"
        yield f"  {'margin':<16}{_size(memory.margin):>12}  {MARGIN:.0%} the allocator cannot use"
    yield f"  {'total':<16}{_size(memory.total):>12}  at {memory.phase}; most is {memory.binding.name}"
    if memory.host:
        yield f"  {'host, each rank':<16}{_size(memory.host):>12}"


def _overview(found: Outlook) -> Iterator[str]:
    yield f"  {'':<8}" + "".join(f"{method:>10}" for method in METHODS)
    for strategy in dict.fromkeys(cell.strategy for cell in found.cells):
        row = [_cell(found, cell.memory) for cell in found.cells if cell.strategy == strategy]
        yield f"  {strategy:<8}" + "".join(f"{text:>10}" for text in row)


def _cell(found: Outlook, memory: Memory | None) -> str:
    if memory is None:
        return "-"
    room = found.cluster.gpu.memory_gib if found.cluster else None
    return f"{memory.total / GIB:.1f}{'!' if room is not None and memory.total > room * GIB else ' '}"


def _time(found: Outlook) -> Iterator[str]:
    cpu = found.run.parallel.device == "cpu"
    if found.pace is None:
        yield f"  {_unpaced(found, cpu=cpu)}"
        return
    unit = "rank-hours" if cpu else "GPU-hours"
    ranks = found.run.parallel.processes
    yield f"  {found.pace.tokens_per_second:,.0f} tokens/s over {ranks} rank{'s' * (ranks > 1)} ({found.pace.source})"
    if found.launch.nodes > 1 and not found.pace.measured:
        yield "  the network between nodes is not counted: sharded strategies will be slower than this"
    if found.measured and found.measured.memory_mb:
        size = found.measured.memory_mb * 2**20
        off = found.memory.tensors / size - 1
        yield f"  memory measured there {_size(round(size))}: the plan's tensors are {off:+.0%} of it"
    if found.seconds is None:
        million = 1e6 / found.pace.tokens_per_second
        yield f"  {_duration(million)} and {million * ranks / 3600:.2f} {unit} for each million tokens"
        return
    hours = found.seconds / 3600
    text = f"  at most {_duration(found.seconds)}, {hours * ranks:.1f} {unit}"
    price = found.cluster.price_per_gpu_hour if found.cluster else None
    yield text + (f", price {price * hours * ranks:.2f}" if price is not None else "")


def _unpaced(found: Outlook, *, cpu: bool) -> str:
    """Why no time is told, and what would change that."""
    past = "name a past run with --measured"
    if cpu:
        return f"there is no estimate for CPU ranks: {past}"
    if found.run.parallel.precision == "fp32":
        return f"there is no estimate in fp32: {past}"
    return f"name the hardware with --on, e.g. --on 8xh100, or {past.removeprefix('name ')}"


def _verdict(found: Outlook) -> Iterator[str]:
    place = found.cluster
    if place is None:
        return
    yield ""
    need, have = _size(found.memory.total), f"{place.gpu.memory_gib:.1f} GiB"
    if found.fits:
        yield f"it fits: {need} of {have} on {place.name}"
        return
    if found.memory.total <= place.gpu.memory_gib * GIB:
        yield f"it does not fit: the host of {place.name} lacks memory for what is offloaded"
    else:
        yield f"it does not fit: {need} of {have} on {place.name}; most is {found.memory.binding.name}"
    if not found.changes:
        yield "no strategy, offload, micro-batch, activation checkpointing or ranks that share rows make it fit:"
        yield "use a smaller method (lora, qlora), a shorter data.max_length, or more GPUs"
        return
    yield "nearest changes that fit:"
    for number, change in enumerate(nearest(found.changes)[:NEAREST], 1):
        speed = "" if change.tokens_per_second is None else f", {change.tokens_per_second:,.0f} tokens/s"
        yield f"  {number}. {change.words}  ({_size(change.memory.total)}{speed})"


def proposal(found: Outlook) -> Iterator[str]:
    """The fastest settings that fit, as YAML to be put into the run file."""
    assert found.cluster is not None
    if not found.changes:
        yield f"# nothing fits {found.cluster.name}: use a smaller method, a shorter data.max_length, or more GPUs"
        return
    best: Change = found.changes[0]
    yield f"# fits {found.cluster.name}: {_size(best.memory.total)} of {found.cluster.gpu.memory_gib:.1f} GiB,"
    if best.tokens_per_second is None:
        yield "# the fewest changes, as speed is not estimated in fp32"
    else:
        yield f"# about {best.tokens_per_second:,.0f} tokens/s (an estimate)"
    yield best.yaml.rstrip() if best.overrides else "# the run file as it is: no override is needed"


def as_data(found: Outlook) -> dict[str, Any]:
    """The plan as plain data, sizes in bytes."""
    count = counts(found.model, found.run.adapter)
    memory = found.memory
    return {
        "command": {
            "line": found.launch.line,
            "argv": list(found.launch.argv),
            "environment": dict(found.launch.environment),
            "reads": list(found.secrets),
        },
        "model": {
            "path": found.run.model.path,
            "type": found.model.shape.model_type,
            "parameters": count.total,
            "trained_parameters": count.trained,
        },
        "ranks": found.run.parallel.processes,
        "extent": asdict(found.extent),
        "memory": {
            "phase": memory.phase,
            "terms": {term.name: term.size for term in memory.terms},
            "phases": dict(memory.phases),
            "tensors": memory.tensors,
            "context": memory.context,
            "margin": memory.margin,
            "total": memory.total,
            "binding": memory.binding.name,
            "host": memory.host,
        },
        "overview": [
            {
                "strategy": cell.strategy,
                "method": cell.method,
                "total": cell.memory.total if cell.memory else None,
            }
            for cell in found.cells
        ],
        "files": list(found.files),
        "checkpoint_bytes": found.checkpoint_bytes,
        "disk_bytes": found.disk_bytes,
        "pace": asdict(found.pace) if found.pace else None,
        "seconds": found.seconds,
        "fits": found.fits,
        "changes": [dict(change.overrides) for change in nearest(found.changes)[:NEAREST]],
        "fastest": dict(found.changes[0].overrides) if found.changes else None,
    }


def _guessed(found: Outlook) -> bool:
    return found.pace is not None and not found.pace.measured


def _section(title: str) -> Iterator[str]:
    yield ""
    yield title


def _offload(found: Outlook) -> str:
    parallel = found.run.parallel
    parts = ["optimizer"] * parallel.offload_optimizer + ["parameters"] * parallel.offload_parameters
    return f" with {' and '.join(parts)} in host memory" if parts else ""


def _free(folder: Path) -> str:
    """Room on the disk of the nearest folder there is."""
    here = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    return f"{_size(shutil.disk_usage(here).free)} free on this machine"


def _size(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"


def _count(number: int) -> str:
    for unit, scale in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= scale:
            return f"{number / scale:.2f} {unit}"
    return str(number)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{seconds / 60:.1f} min"
