"""The same 20 steps under every strategy, and 40 steps with and without a kill in the middle: losses and memory.

Run: python benchmarks/strategies.py [--write]. Real ranks over gloo, the embedded model, the basics benchmark's rows.
Prints tables; --write also puts them in docs/results/strategies.md.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil
import yaml

from engine.config import load
from launch.command import plan

ROOT = Path(__file__).parent.parent
STEPS = 20
STRATEGIES = ("none", "ddp", "zero1", "zero2", "zero3", "fsdp2")
PACKAGES = ("torch", "transformers", "accelerate", "deepspeed", "peft", "bitsandbytes")


def wish(folder: Path, name: str, **sections: dict[str, object]) -> Path:
    """A run file in `folder`; its run folder has the same name."""
    tree: dict[str, object] = {
        "output": str(folder / name),
        "model": {"path": str(ROOT / "configs" / "tiny" / "base")},
        "data": {"train": [{"path": str(folder / "rows.jsonl")}], "max_length": 256},
        "train": {"steps": STEPS, "global_batch": 8, "micro_batch": 2, "learning_rate": 1e-3},
        "checkpoint": {"export": "none"},
        **sections,
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def start(file: Path) -> subprocess.Popen[bytes]:
    """`accelerate launch` as `temper train` would call it."""
    made = plan(load(file).run, "train", str(file))
    argv = [str(Path(sys.executable).with_name(made.argv[0])), *made.argv[1:]]
    log = file.with_suffix(".log").open("wb")
    return subprocess.Popen(argv, env=os.environ | dict(made.environment), stdout=log, stderr=log, cwd=ROOT)


def losses(file: Path) -> dict[int, float]:
    """Loss by step from the run's metrics."""
    lines = (file.with_suffix("") / "metrics.jsonl").read_text().splitlines()
    return {record["step"]: record["loss"] for record in map(json.loads, lines) if "loss" in record}


def run(file: Path) -> float:
    """Run to the end; the largest peak RSS of a rank, in MiB, as the kernel counts it (VmHWM)."""
    process = start(file)
    peak: dict[int, float] = {}
    while process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            try:
                status = Path(f"/proc/{child.pid}/status").read_text()
                command = child.cmdline()
            except (OSError, psutil.Error):
                continue
            if "engine" in command and "VmHWM" in status:
                peak[child.pid] = int(status.split("VmHWM:")[1].split()[0]) / 1024
        time.sleep(0.2)
    if process.returncode:
        sys.exit(f"{file} ended with {process.returncode}:\n{file.with_suffix('.log').read_text()[-3000:]}")
    return max(peak.values())


def compare(folder: Path, precision: str) -> list[str]:
    """Table rows of every strategy in one precision."""
    rows: list[str] = []
    reference: dict[int, float] = {}
    for strategy in STRATEGIES:
        processes = 1 if strategy == "none" else 2
        parallel = {
            "strategy": strategy,
            "processes": processes,
            "precision": precision,
            "device": "cpu",
            "threads": 1,
        }
        file = wish(folder, f"{strategy}-{precision}", parallel=parallel)
        peak = run(file)
        found = losses(file)
        reference = reference or found
        worst = max(abs(found[step] - reference[step]) / reference[step] for step in reference)
        in_force = json.loads((file.with_suffix("") / "facts.json").read_text())["strategy"]
        rows.append(
            f"| {precision} | {strategy} | {in_force} | {found[1]:.6f} | {found[STEPS]:.6f} "
            f"| {worst:.1e} | {peak:.0f} |"
        )
        print(rows[-1], flush=True)
    return rows


def kill_and_resume(folder: Path, strategy: str, kind: str) -> str:
    """40 steps in one go against 20, kill -9 of launcher and ranks, and the rest after a resume."""
    processes = 1 if strategy == "none" else 2
    sections: dict[str, dict[str, object]] = {
        "train": {"steps": 40, "global_batch": 8, "micro_batch": 2, "learning_rate": 1e-3},
        "parallel": {"strategy": strategy, "processes": processes, "device": "cpu", "threads": 1},
        "adapter": {"kind": kind},
        "checkpoint": {"every": 20, "export": "none"},
    }
    whole, cut = (
        wish(folder, f"whole-{strategy}-{kind}", **sections),
        wish(folder, f"cut-{strategy}-{kind}", **sections),
    )
    run(whole)
    process = start(cut)
    while not (cut.with_suffix("") / "checkpoints" / "step-000020" / "manifest.json").exists():
        if process.poll() is not None:
            sys.exit(cut.with_suffix(".log").read_text()[-3000:])
        time.sleep(0.02)
    root = psutil.Process(process.pid)
    for member in [root, *root.children(recursive=True)]:
        member.kill()
    process.wait()
    reached = max(losses(cut))
    run(cut)
    same = sum(losses(whole)[step] == losses(cut)[step] for step in range(1, 41))
    row = f"| {strategy} | {kind} | {reached} | {same} of 40 |"
    print(row, flush=True)
    return row


def main() -> None:
    """Print the tables, and write them where asked."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export = ["benchmark", "export", "basics", "--count", "2000", "--out", str(folder / "rows.jsonl")]
        subprocess.run([sys.executable, "-m", "engine", *export], check=True, cwd=ROOT)
        rows = compare(folder, "fp32") + compare(folder, "bf16")
        resumed = [kill_and_resume(folder, "zero2", "full"), kill_and_resume(folder, "zero3", "qlora")]
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    text = f"""# One run, every strategy

`python benchmarks/strategies.py`, {datetime.now(UTC):%Y-%m-%d}, {versions}, Python {platform.python_version()},
{platform.machine()}, {os.cpu_count()} cores, no GPU. {STEPS} steps of 8 rows of 256 tokens, the embedded model,
all weights trained. Largest relative difference of any step's loss from `none` of the same precision
(aim: 1e-5 in fp32, 1e-3 in bf16); peak memory is the kernel's VmHWM of the largest rank, libraries included.

| precision | strategy | in force | loss 1 | loss {STEPS} | largest difference | peak MiB a rank |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

## Killed and resumed

40 steps in one go, against a run whose launcher and ranks were killed (SIGKILL) once the checkpoint of step 20
was there, and which was then started again: steps whose loss is equal to the last bit.

| strategy | method | steps logged when killed | equal losses |
|---|---|---|---|
{chr(10).join(resumed)}
"""
    print(text)
    if "--write" in sys.argv:
        (ROOT / "docs" / "results" / "strategies.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
