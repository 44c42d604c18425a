"""Temper beside TRL's SFTTrainer and transformers' Trainer: tokens a second and peak memory, on the same rows.

Run: PYTHONPATH=.:FOLDER_WITH_TRL python benchmarks/trainers.py [--write] [--rounds N]. Two ranks over gloo, one thread
each, fp32, one run after another by turns. Prints tables; --write also puts them in docs/results/trainers.md.
"""

from __future__ import annotations

import ast
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import yaml
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from engine.config import load
from engine.data.order import epoch_order, key, permutation
from launch.command import plan

ROOT = Path(__file__).parent.parent
TRAINERS = ("temper", "trl", "hf")
SHAPES = ("padded", "packed")
STEPS = {1536: 30, 50_304: 10}
"""Steps of a run by vocabulary; the first one, which allocates, is in no figure."""
ROWS = {"padded": 4, "packed": 1}
"""Rows of a rank's batch; the plain Trainer's flattening takes samples, as many as when they are padded."""
LENGTH = 1024
SAMPLES = 1200
PACKAGES = ("torch", "transformers", "accelerate", "trl")


@dataclass(frozen=True, slots=True)
class Result:
    """One run: tokens a second after the first step, peak MiB of its largest rank, tokens of a step."""

    speed: float
    peak: float
    tokens: float


def functions() -> Iterator[dict[str, str]]:
    """Documented functions of the running Python's standard library, cut after the docstring."""
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        source = path.read_text(encoding="utf-8", errors="replace")
        lines = source.splitlines(keepends=True)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) and len(node.body) > 1:
                cut, end = node.body[0].end_lineno, node.end_lineno
                if cut and end and end > cut:
                    yield {
                        "prompt": "".join(lines[node.lineno - 1 : cut]),
                        "completion": "".join(lines[cut:end]),
                    }


def prepare(folder: Path, vocabulary: int) -> None:
    """A random model with the embedded tokenizer, and rows that fit."""
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "configs" / "tiny" / "base")
    tokenizer.save_pretrained(folder / "model")
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    rows = [
        row for row in functions() if len(tokenizer(row["prompt"] + row["completion"])["input_ids"]) < LENGTH
    ]
    random.Random(0).shuffle(rows)
    rows = rows[:SAMPLES]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # The peers read them one after another, in the order in which Temper draws them: the same rows in every step.
    order = epoch_order([len(rows)], [1.0], seed=0, epoch=0).rows[
        permutation(len(rows), seed=key(0, "rows", 0))
    ]
    (folder / "drawn.jsonl").write_text("".join(json.dumps(rows[at]) + "\n" for at in order))


def temper(folder: Path, shape: str, steps: int) -> tuple[list[str], dict[str, str]]:
    """`accelerate launch` as `temper train` would call it."""
    rows = ROWS[shape]
    wish = {
        "output": str(folder / "temper"),
        "model": {"path": str(folder / "model")},
        "data": {
            "train": [{"path": str(folder / "rows.jsonl")}],
            "max_length": LENGTH,
            "packing": shape == "packed",
        },
        "train": {
            "steps": steps,
            "global_batch": 2 * rows,
            "micro_batch": rows,
            "learning_rate": 1e-4,
            "weight_decay": 0.0,
        },
        "parallel": {"strategy": "ddp", "processes": 2, "device": "cpu", "threads": 1, "precision": "fp32"},
        "checkpoint": {"at_end": False, "export": "none", "resume": "never"},
    }
    file = folder / "temper.yaml"
    file.write_text(yaml.safe_dump(wish))
    made = plan(load(file).run, "train", str(file))
    return [str(Path(sys.executable).with_name(made.argv[0])), *made.argv[1:]], dict(made.environment)


def peer(kind: str, folder: Path, shape: str, steps: int) -> tuple[list[str], dict[str, str]]:
    """`torchrun` of the script beside this one."""
    rows = ROWS["padded"] if kind == "hf" else ROWS[shape]
    script = str(Path(__file__).parent / "rivals" / "trainer.py")
    words = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node=2", script]
    return [*words, kind, shape, str(folder), str(steps), str(rows)], {"OMP_NUM_THREADS": "1"}


def run(kind: str, folder: Path, shape: str, steps: int) -> Result:
    """One training to its end."""
    argv, environment = temper(folder, shape, steps) if kind == "temper" else peer(kind, folder, shape, steps)
    metrics = folder / "temper" / "metrics.jsonl"
    metrics.unlink(missing_ok=True)
    peak: dict[int, float] = {}
    with (folder / "out.log").open("wb") as out, (folder / "err.log").open("wb") as err:
        process = subprocess.Popen(argv, env=os.environ | environment, stdout=out, stderr=err, cwd=ROOT)
        while process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                try:
                    status = Path(f"/proc/{child.pid}/status").read_text()
                except OSError:
                    continue
                if "VmHWM" in status:
                    peak[child.pid] = int(status.split("VmHWM:")[1].split()[0]) / 1024
            time.sleep(0.2)
    if process.returncode:
        sys.exit(
            f"{kind} {shape} ended with {process.returncode}:\n{(folder / 'err.log').read_text()[-3000:]}"
        )
    borders = ours(folder, metrics) if kind == "temper" else theirs(folder)
    tokens = borders[-1][1] - borders[0][1]
    return Result(tokens / (borders[-1][0] - borders[0][0]), max(peak.values()), tokens / (len(borders) - 1))


def ours(folder: Path, metrics: Path) -> list[tuple[float, int]]:
    """When each step ended, and the tokens until then."""
    facts = json.loads((folder / "temper" / "facts.json").read_text())
    assert facts["strategy"].startswith("ddp over 2 ranks"), facts["strategy"]
    borders, total = [], 0
    for record in map(json.loads, metrics.read_text().splitlines()):
        if "loss" in record:
            total += record["tokens"]
            borders.append((record["time"], total))
    return borders


def theirs(folder: Path) -> list[tuple[float, int]]:
    """The same of a peer."""
    told: dict[str, Any] = next(
        json.loads(line)
        for line in (folder / "out.log").read_text().splitlines()
        if line.startswith('{"strategy"')
    )
    assert told["strategy"] == "DistributedDataParallel" and told["ranks"] == 2, told
    return [(when, tokens) for when, tokens in told["borders"]]


def table(found: dict[tuple[int, str, str], list[Result]]) -> list[str]:
    """A row a cell: medians, and what Temper's is of the others'."""
    rows = []
    for vocabulary in STEPS:
        for shape in SHAPES:
            of = {kind: found[vocabulary, shape, kind] for kind in TRAINERS}
            speed = {kind: statistics.median(one.speed for one in of[kind]) for kind in TRAINERS}
            peak = {kind: statistics.median(one.peak for one in of[kind]) for kind in TRAINERS}
            # Round by round, as the machine may change between rounds.
            ratio = {
                kind: statistics.median(
                    ours.speed / other.speed for ours, other in zip(of["temper"], of[kind], strict=True)
                )
                for kind in TRAINERS
            }
            rows.append(
                f"| {vocabulary} | {shape} | {speed['temper']:,.0f} | {speed['trl']:,.0f} | {speed['hf']:,.0f} "
                f"| {ratio['trl']:.2f} | {ratio['hf']:.2f} "
                f"| {peak['temper']:,.0f} | {peak['trl']:,.0f} | {peak['hf']:,.0f} |"
            )
    return rows


def main() -> None:
    """Print the table, and write it where asked."""
    rounds = int(sys.argv[sys.argv.index("--rounds") + 1]) if "--rounds" in sys.argv else 3
    found: dict[tuple[int, str, str], list[Result]] = {}
    with tempfile.TemporaryDirectory() as name:
        for vocabulary in STEPS:
            folder = Path(name, str(vocabulary))
            folder.mkdir()
            prepare(folder, vocabulary)
        for number in range(rounds):
            for vocabulary, steps in STEPS.items():
                for shape in SHAPES:
                    # Each comes first, second and last in turn.
                    for place in range(len(TRAINERS)):
                        kind = TRAINERS[(place + number) % len(TRAINERS)]
                        result = run(kind, Path(name, str(vocabulary)), shape, steps)
                        found.setdefault((vocabulary, shape, kind), []).append(result)
                        print(
                            f"round {number + 1}: {vocabulary} {shape} {kind}: {result.speed:,.0f} tokens/s, "
                            f"{result.peak:,.0f} MiB, {result.tokens:,.0f} tokens a step",
                            flush=True,
                        )
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    text = f"""# Temper beside TRL's SFTTrainer and transformers' Trainer

`python benchmarks/trainers.py`, {datetime.now(UTC):%Y-%m-%d}, {versions}, Python {platform.python_version()},
{platform.machine()}, {os.cpu_count()} cores, no GPU. A Llama of 4 layers, 256 wide, random weights, fp32; two ranks of
one thread each (DistributedDataParallel over gloo, asserted); {SAMPLES} documented functions of Python's standard
library as prompt and completion, loss on completions, rows of at most {LENGTH} tokens; AdamW, gradients clipped, no
activation checkpointing. Padded: {ROWS["padded"]} samples a rank, which the others pad to the longest and Temper
lays end to end; packed: {ROWS["packed"]} row of {LENGTH} a rank (the plain Trainer's flattening joins
{ROWS["padded"]} samples). Medians of {rounds} rounds, the three by turns;
tokens without padding, of all steps but the first; ratios are medians of each round's. Memory is the kernel's peak
(VmHWM) of the largest rank, libraries included.

| vocabulary | rows | tokens/s: Temper | TRL | Trainer | Temper/TRL | Temper/Trainer | MiB: Temper | TRL | Trainer |
|---|---|---|---|---|---|---|---|---|---|
{chr(10).join(table(found))}
"""
    print(text)
    if "--write" in sys.argv:
        (ROOT / "docs" / "results" / "trainers.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
