"""The plan's memory against real training steps: every strategy and method, tiny models, CPU ranks over gloo.

Run: python benchmarks/plan_memory.py [--write | --only WORD]. Prints tables; --write also puts them in
docs/results/plan_memory.md. --only keeps the cases whose strategy or name has the word. A case whose ranks fail, or
whose plan is off by more than 5 %, is an error.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import queue
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import deepspeed  # noqa: F401 - imported once, before the ranks are forked
import torch
from allocation.case import SHAPE, Case, cases, unseen
from allocation.rank import measure
from allocation.result import BOUND, Result, faults, spread
from executors.machine import ROOT, command, demand_whole, facts, prose
from transformers import AutoConfig, AutoModelForCausalLM

PACKAGES = ("torch", "transformers", "accelerate", "deepspeed", "peft", "bitsandbytes")
PATIENCE = 120.0
PLAN_ROUNDS = 5

EXPERTS = {"num_experts_per_tok": 2, "num_local_experts": 4}
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": {"head_dim": 32},
    "gpt2": {"n_inner": 384, "tie_word_embeddings": True, "attn_pdrop": 0.0},
    "mixtral": EXPERTS,
    "qwen3_moe": EXPERTS | {"num_experts": 4, "moe_intermediate_size": 192, "head_dim": 32},
}


def models(folder: Path) -> None:
    """One tiny model folder a family."""
    for family in sorted({case.family for case in (*cases(), *unseen())}):
        config = AutoConfig.for_model(family, **(SHAPE | FAMILIES.get(family, {})))
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder / family)


def _rank(case: Case, folder: Path, tracker: str, rank: int, port: int, answers: Any) -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    try:
        size = measure(case, folder, tracker, rank, port)
        if rank == 0:
            answers.put(size)
            answers.close()
            answers.join_thread()
    except Exception as error:
        print(f"{case.strategy} {case.name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def peak(case: Case, folder: Path, tracker: str) -> int | None:
    """Bytes of rank 0 at its peak; None where the ranks failed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    ranks = [
        context.Process(target=_rank, args=(case, folder, tracker, rank, port, answers))
        for rank in range(case.ranks)
    ]
    for rank in ranks:
        rank.start()
    size, until = None, time.monotonic() + PATIENCE
    while size is None and time.monotonic() < until:
        try:
            size = answers.get(timeout=0.2)
        except queue.Empty:
            if any(rank.exitcode for rank in ranks):
                break
    for rank in ranks:
        rank.join(10 if size is not None else 0.5)
        rank.kill()
    return size


def result(case: Case, folder: Path) -> Result:
    """Plan and measure one case. Setting up is no part of what is measured, and so of what is planned here."""
    planned = case.predicted(folder)
    phase, size = max((item for item in planned.phases if item[0] != "start"), key=lambda item: item[1])
    size += planned.host
    tracked = peak(case, folder, "memtracker") if case.tracked else None
    return Result(case, phase, size, peak(case, folder, "ledger"), tracked)


def plan_seconds() -> tuple[float, float]:
    """Median and most wall seconds of `temper plan` as a process of its own."""
    words = [sys.executable, "-m", "launch", "plan", "configs/tiny/full.yaml"]
    times = []
    for _ in range(PLAN_ROUNDS + 1):
        began = time.perf_counter()
        subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:]), max(times[1:])


def shown(size: int | None) -> str:
    """KiB, or a dash."""
    return "-" if size is None else f"{size / 1024:,.0f}"


def report(results: list[Result]) -> str:
    """The whole page."""
    known = [(one, one.error) for one in results if one.error is not None]
    rows = [
        f"| {one.case.strategy} | {one.case.name} | {one.phase} | {shown(one.planned)} | {shown(one.memtracker)} "
        f"| {shown(one.ledger)} | {'-' if one.error is None else f'{one.error:+.1%}'} |"
        for one in results
    ]
    groups = {
        "against MemTracker": [error for one, error in known if one.memtracker is not None],
        "against the ledger alone (ZeRO)": [error for one, error in known if one.memtracker is None],
        "all": [error for _, error in known],
        "of these, unseen": [error for one, error in known if one.case in set(unseen())],
    }
    both = [one.ledger / one.memtracker - 1 for one in results if one.ledger and one.memtracker]
    median, most = plan_seconds()
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return PAGE.format(
        head=prose(f"`{command()}`, {facts()}, no GPU; {versions}."),
        bound=100 * BOUND,
        spreads="\n".join(spread(name, errors) for name, errors in groups.items() if errors),
        rows="\n".join(rows),
        agreement=f"{min(both):+.1%} to {max(both):+.1%}" if both else "not measured",
        rounds=PLAN_ROUNDS,
        median=median,
        most=most,
    )


PAGE = """# Memory: planned and measured

{head}

Each case is a tiny model that takes real optimizer steps with the engine's own strategy on one (`none`) or two real
ranks over gloo: what rank 0 holds at its most, from the second step on, against the plan's sum of terms. Every token is
trained, each row holds two samples, and the plan is told so; context and margin are left out, as CPU ranks have none.

- `none`, `ddp` and `fsdp2` are held against torch's `MemTracker` (torch.distributed._tools.mem_tracker).
- MemTracker is not used on DeepSpeed's engine: ZeRO is held against benchmarks/allocation/ledger.py, which counts
  every tensor storage that goes through torch's dispatcher. Where both work they differ by {agreement}.
- Offloaded tensors lie in the same memory on CPU ranks, so these cases compare device and host terms together.
- The formulas were mended while most of these cases were measured. The unseen ones, last in the table, were added once
  they stood. On 2026-11-25, when 18 were added, 15 of them were within 5 % the first time; gpt2 (-25 %), mixtral with
  adapters on its experts (-31 %) and the experts of qwen3_moe under ZeRO-3 (-8 %) were not, and were mended: the table
  is of after that.
- gpt2 is measured without attention dropout, for which torch's CPU attention falls back to the written-out product.
- DeepSpeed's buckets (100,000 elements) and the loss' chunks of logits (65,536) are made small, in proportion to these
  models; the plan is told so.

Not measured here: CUDA's kernels (their attention and fused optimizers), the caching allocator, NCCL, and setting up.

| measured by | cases | least | median | most | largest either way | within {bound:g} % |
|---|---|---|---|---|---|---|
{spreads}

`temper plan configs/tiny/full.yaml` as a process of its own, {rounds} rounds after one to warm up: median
{median:.3f} s, most {most:.3f} s (aim: below 0.5 s).

## Every case

KiB of tensors on one rank at the peak.

| strategy | case | planned peak at | planned | MemTracker | ledger | error |
|---|---|---|---|---|---|---|
{rows}
"""


def main() -> None:
    """Print the page, write it where asked, and fail where a case does."""
    parser = argparse.ArgumentParser(description="Hold the plan's memory against real training steps.")
    parser.add_argument(
        "--only", default="", metavar="WORD", help="cases whose strategy or name has the word"
    )
    parser.add_argument("--write", action="store_true")
    wish = parser.parse_args()
    demand_whole(parser, wish, "only")
    wanted = [case for case in (*cases(), *unseen()) if wish.only in f"{case.strategy} {case.name}"]
    if not wanted:
        parser.error(f"no case has {wish.only!r} in its strategy or name")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models(folder)
        results = []
        for case in wanted:
            results.append(result(case, folder))
            one = results[-1]
            error = "failed" if one.error is None else f"{one.error:+.1%}"
            print(
                f"{case.strategy:6} {case.name:50} {one.phase:15} {shown(one.planned):>9} {shown(one.memtracker):>9} "
                f"{shown(one.ledger):>9} {error}",
                flush=True,
            )
    text = report(results)
    print(text)
    if wish.write:
        (ROOT / "docs" / "results" / "plan_memory.md").write_text(text, encoding="utf-8")
    if wrong := list(faults(results)):
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
