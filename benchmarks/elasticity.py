"""A run of two ranks continued on two, one and four from the middle: what the losses after it differ by.

Run: python benchmarks/elasticity.py [--write]. Real ranks over gloo, the embedded model, the basics benchmark's rows.
Beside each difference stands what rounding alone does: the same run from its start on that many ranks.
Prints the table; --write also puts it in docs/results/elasticity.md. Exits with 1 where a bar is missed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from executors.machine import ROOT, command, facts, prose
from strategies import PACKAGES, losses, run, wish

STEPS, HALF = 20, 10
CASES = [(name, "full") for name in ("ddp", "zero1", "zero2", "zero3", "fsdp2")]
CASES += [(name, "qlora") for name in ("ddp", "zero2", "zero3")]
MOVES = [("zero3", "ddp"), ("ddp", "fsdp2"), ("fsdp2", "zero2")]
BARS = {"full": 1e-4, "qlora": 2e-2}
"""Largest relative difference of a loss: weights trained in fp32, and adapters over an NF4 base in bf16."""


def write(folder: Path, name: str, strategy: str, kind: str, ranks: int) -> Path:
    """A run of `STEPS` steps that keeps the checkpoint of its middle."""
    precision = "fp32" if kind == "full" else "bf16"
    parallel = {
        "strategy": strategy,
        "processes": ranks,
        "precision": precision,
        "device": "cpu",
        "threads": 1,
    }
    return wish(
        folder,
        name,
        train={"steps": STEPS, "global_batch": 8, "micro_batch": 2, "learning_rate": 1e-3},
        parallel=parallel,
        adapter={"kind": kind, "dropout": 0.0} if kind == "qlora" else {"kind": kind},
        checkpoint={"every": HALF, "keep_last": 3, "export": "none"},
    )


def continued(whole: Path, other: Path) -> dict[int, float]:
    """The losses of `other`'s run, which goes on from the middle of `whole`'s."""
    folder = other.with_suffix("")
    shutil.copytree(whole.with_suffix(""), folder)
    shutil.rmtree(folder / "checkpoints" / f"step-{STEPS:06d}")
    run(other)
    said = other.with_suffix(".log").read_text()
    if f"resumed at step {HALF} of {STEPS}" not in said:
        sys.exit(f"{other} did not resume:\n{said[-2000:]}")
    return losses(other)


def apart(one: dict[int, float], other: dict[int, float]) -> float:
    """Largest relative difference of a loss after the middle."""
    return max(abs(one[step] - other[step]) / other[step] for step in range(HALF + 1, STEPS + 1))


def in_force(file: Path) -> str:
    """What the ranks found to be in force."""
    found: str = json.loads((file.with_suffix("") / "facts.json").read_text())["strategy"]
    return found.partition(" (")[0]


def ranks_rows(folder: Path, strategy: str, kind: str) -> tuple[list[str], bool]:
    """Table rows of one strategy and method; whether all bars are met."""
    name = f"{strategy}-{kind}"
    whole = write(folder, f"{name}-2", strategy, kind, 2)
    run(whole)
    reference = losses(whole)
    again = write(folder, f"{name}-2-2", strategy, kind, 2)
    same = sum(value == reference[step] for step, value in continued(whole, again).items())
    rows = [f"| {strategy} | {kind} | 2 | {in_force(again)} | {same} of {STEPS} equal to the last bit | |"]
    met = same == STEPS
    for ranks in (1, 4):
        moved = write(folder, f"{name}-2-{ranks}", strategy, kind, ranks)
        difference = apart(continued(whole, moved), reference)
        alone = write(folder, f"{name}-{ranks}", strategy, kind, ranks)
        run(alone)
        rounding = apart(losses(alone), reference)
        rows.append(
            f"| {strategy} | {kind} | {ranks} | {in_force(moved)} | {difference:.1e} | {rounding:.1e} |"
        )
        met = met and difference <= BARS[kind]
    print("\n".join(rows), flush=True)
    return rows, met


def strategy_row(folder: Path, then: str, now: str) -> tuple[str, bool]:
    """A table row of a run that goes on under another strategy."""
    whole = folder / f"{then}-full-2.yaml"
    moved = write(folder, f"{then}-{now}", now, "full", 2)
    difference = apart(continued(whole, moved), losses(whole))
    rounding = apart(losses(folder / f"{now}-full-2.yaml"), losses(whole))
    row = f"| {then} | {now} | {in_force(moved)} | {difference:.1e} | {rounding:.1e} |"
    print(row, flush=True)
    return row, difference <= BARS["full"]


def main() -> None:
    """Print the tables, write them where asked, and say whether the bars are met."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export = ["benchmark", "export", "basics", "--count", "2000", "--out", str(folder / "rows.jsonl")]
        subprocess.run([sys.executable, "-m", "engine", *export], check=True, cwd=ROOT)
        by_ranks = [ranks_rows(folder, strategy, kind) for strategy, kind in CASES]
        by_strategy = [strategy_row(folder, then, now) for then, now in MOVES]
    met = all(each for _, each in by_ranks + by_strategy)
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    verdict = "All are met." if met else "NOT all are met."
    about = (
        f"A run of {STEPS} steps on two ranks (8 rows of 256 tokens a step, the embedded model; full: fp32; qlora: "
        f"NF4 base, bf16) is continued from the checkpoint of step {HALF} on two, one and four. Differences are the "
        "largest relative one of a loss after that step, from the run that was never stopped. Rounding: the same, of "
        "a run that was on so many ranks from its start. Bars: every bit equal on two ranks; "
        f"{BARS['full']:g} for full and {BARS['qlora']:g} for qlora on others. {verdict}"
    )
    text = f"""# Resumed on other ranks

`{command()}`

{prose(facts() + ". " + versions + ".")}

{prose(about)}

| strategy | method | ranks now | in force | difference | rounding alone |
|---|---|---|---|---|---|
{chr(10).join(row for rows, _ in by_ranks for row in rows)}

## Resumed under another strategy

| strategy then | now | in force | difference | rounding alone |
|---|---|---|---|---|
{chr(10).join(row for row, _ in by_strategy)}
"""
    print(text)
    if "--write" in sys.argv:
        (ROOT / "docs" / "results" / "elasticity.md").write_text(text, encoding="utf-8")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
