"""How much faster compiled layers train: the same training with `model.compile` and without, on CPU ranks.

Run: python benchmarks/compiled.py [--write]. Real trainings by the launch line of `temper train`, two ranks under
ZeRO-2, packed rows; variants take turns. Prints the table; --write also puts it in docs/results/compiled.md. Exits
with 1 where nothing was compiled or losses differ beyond rounding.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from executors.machine import ROOT, command, facts, prose
from trainers import functions
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from engine.config import load
from launch.command import plan
from launch.verify import LIMITS

STEPS, REPEATS, LENGTH = 12, 3, 1024
SHAPE = {
    "vocab_size": 1536,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}


@dataclass(frozen=True, slots=True)
class Case:
    """What is trained, and whether activations are recomputed."""

    precision: str
    recomputed: bool


@dataclass(frozen=True, slots=True)
class Result:
    """Of one training."""

    speed: float
    first: float
    graphs: int | None
    losses: tuple[float, ...]


CASES = [Case(precision, recomputed) for precision in ("fp32", "bf16") for recomputed in (False, True)]


def train(case: Case, folder: Path, *, compiled: bool) -> Result:
    """One training; what was compiled before is found in torch's cache, as on any later start."""
    out = folder / f"{case.precision}-{case.recomputed}-{compiled}"
    tree: dict[str, Any] = {
        "output": str(out),
        "model": {
            "path": str(folder / "model"),
            "activation_checkpointing": case.recomputed,
            "compile": compiled,
        },
        "data": {
            "train": [{"path": str(folder / "rows.jsonl"), "format": "text"}],
            "max_length": LENGTH,
            "overlong": "truncate",
            "decontaminate": False,
        },
        "train": {"steps": STEPS, "global_batch": 8, "micro_batch": 1, "learning_rate": 1e-3, "log_every": 1},
        "parallel": {
            "strategy": "zero2",
            "processes": 2,
            "device": "cpu",
            "precision": case.precision,
            "threads": 1,
        },
        "checkpoint": {"at_end": False, "export": "none", "resume": "never"},
    }
    file = out.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(tree))
    made = plan(load(file).run, "train", str(file))
    argv = [str(Path(sys.executable).with_name(made.argv[0])), *made.argv[1:]]
    log = out.with_suffix(".log")
    with log.open("w") as stream:
        done = subprocess.run(
            argv, env=os.environ | dict(made.environment), stdout=stream, stderr=subprocess.STDOUT, cwd=ROOT
        )
    if done.returncode:
        sys.exit(f"{file} ended with {done.returncode}:\n{log.read_text()[-3000:]}")
    card = json.loads((out / "perf.json").read_text())
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = tuple(record["loss"] for record in records if "loss" in record)[-STEPS:]
    return Result(card["tokens_per_second"], card["seconds"]["first step"], card["compiled_graphs"], losses)


def prepare(folder: Path) -> None:
    """A small Llama with the embedded tokenizer, and rows of functions."""
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "configs" / "tiny" / "base")
    tokenizer.save_pretrained(folder / "model")
    torch.manual_seed(0)
    config = LlamaConfig(
        **SHAPE, max_position_embeddings=LENGTH, tie_word_embeddings=True, eos_token_id=tokenizer.eos_token_id
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    texts = [row["prompt"] + row["completion"] for row in functions()]
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def row(case: Case, found: dict[bool, list[Result]]) -> tuple[str, bool]:
    """A line of the table, and whether it holds."""
    plain, compiled = (statistics.median(one.speed for one in found[way]) for way in (False, True))
    pairs = zip(found[True][0].losses, found[False][0].losses, strict=True)
    apart = max(abs(one - other) / other for one, other in pairs)
    cold, warm = found[True][0].first, statistics.median(one.first for one in found[True][1:])
    graphs = found[True][0].graphs
    holds = bool(graphs) and apart <= LIMITS[case.precision][0]
    line = (
        f"| {case.precision} | {'recomputed' if case.recomputed else 'kept'} | {plain:,.0f} | {compiled:,.0f} "
        f"| {compiled / plain:.2f} | {apart:.1e} | {graphs} "
        f"| {statistics.median(one.first for one in found[False]):.1f} | {cold:.1f} | {warm:.1f} |"
    )
    return line, holds


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--write", action="store_true", help="replace docs/results/compiled.md")
    asked = parser.parse_args()
    rows, all_hold = [], True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        for case in CASES:
            # A cache of its own, so that the first start compiles.
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / f"cache-{case.precision}-{case.recomputed}")
            found: dict[bool, list[Result]] = {False: [], True: []}
            for _ in range(REPEATS):
                for compiled in (False, True):
                    found[compiled].append(train(case, folder, compiled=compiled))
            line, holds = row(case, found)
            all_hold &= holds
            rows.append(line)
            print(line, flush=True)
    packages = ", ".join(f"{each} {version(each)}" for each in ("torch", "transformers", "deepspeed"))
    about = (
        f"A Llama of 4 layers, 256 wide, vocabulary {SHAPE['vocab_size']}, packed rows of {LENGTH} tokens, two ranks "
        f"of one thread under ZeRO-2 over gloo, {STEPS} steps of which the first is left out of the speed; medians of "
        f"{REPEATS} trainings, taking turns. Loss: the largest relative difference of any step. The last "
        "three columns are seconds of the first step: plain, compiled for the first time (with an empty cache of "
        "torch's), and compiled at a later start."
    )
    text = f"""# Compiled layers

`{command()}`

{prose(facts() + "; " + packages + ".")}

{prose(about)}

| precision | activations | plain, tokens/s | compiled | ratio | loss apart | graphs | plain | first time | again |
|---|---|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}
"""
    print(text)
    if asked.write:
        (ROOT / "docs" / "results" / "compiled.md").write_text(text, encoding="utf-8")
    sys.exit(0 if all_hold else 1)


if __name__ == "__main__":
    main()
