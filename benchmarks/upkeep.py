"""What it costs not to lose a run: saves that are waited for and saves in the background, and the rehearsal.

Run: python benchmarks/upkeep.py [--write]. Real ranks over gloo, random weights, the basics benchmark's rows; the two
ways of saving in turns. Prints tables; --write also puts them in docs/results/upkeep.md.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from executors.machine import ROOT, command, facts, prose
from strategies import PACKAGES, run, wish
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

ROUNDS, STEPS, EVERY = 3, 24, 6
SIZES = {"7M": (256, 4), "40M": (640, 6)}
"""Hidden size and layers, by name."""
CASES = [("none", 1), ("zero2", 2), ("zero3", 2)]


def model(folder: Path, name: str) -> Path:
    """Random weights of a size, with the embedded tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "configs" / "tiny" / "base")
    hidden, layers = SIZES[name]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)
    return folder / name


def train(
    folder: Path, name: str, size: str, strategy: str, ranks: int, **sections: Any
) -> list[dict[str, Any]]:
    """The records of a training to its end."""
    file = wish(
        folder,
        name,
        model={"path": str(folder / size)},
        data={"train": [{"path": str(folder / "rows.jsonl")}], "max_length": 128},
        parallel={"strategy": strategy, "processes": ranks, "device": "cpu", "threads": 1},
        **sections,
    )
    run(file)
    lines = (file.with_suffix("") / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def saving(folder: Path, size: str, strategy: str, ranks: int) -> list[str]:
    """Table rows of both ways to save: medians over the saves of all rounds, but for each run's last."""
    held: dict[bool, list[float]] = {False: [], True: []}
    there: dict[bool, list[float]] = {False: [], True: []}
    paces: dict[bool, list[float]] = {False: [], True: []}
    steps = {"steps": STEPS, "global_batch": 4, "micro_batch": 2, "learning_rate": 1e-4, "log_every": 1}
    for turn in range(ROUNDS):
        for background in (False, True) if turn % 2 == 0 else (True, False):
            records = train(
                folder,
                f"{size}-{strategy}-{background}-{turn}",
                size,
                strategy,
                ranks,
                train=steps,
                checkpoint={"every": EVERY, "export": "none", "at_end": False, "background": background},
            )
            saves = [r["save_ms"] for r in records if r.get("event") == "save" and r["step"] < STEPS]
            held[background] += saves
            there[background] += [
                r["seconds"] for r in records if r.get("event") == "saved" and r["step"] < STEPS
            ]
            times = {r["step"]: r["seconds"] for r in records if "loss" in r}
            paces[background].append((times[STEPS - 1] - times[1] + sum(saves) / 1000) / (STEPS - 2))
    rows = []
    for background in (False, True):
        stall = statistics.median(held[background])
        pace = statistics.median(paces[background])
        share = stall / 1000 / EVERY / pace
        way = "in the background" if background else "waited for"
        rows.append(
            f"| {size} | {strategy} | {way} | {stall:.0f} | {statistics.median(there[background]):.2f} "
            f"| {pace * 1000:.0f} | {share:.1%} |"
        )
        print(rows[-1], flush=True)
    return rows


def rehearsing(folder: Path, size: str, strategy: str, ranks: int) -> str:
    """A table row of what the rehearsal takes, and of the first step after it and without it."""
    took: list[float] = []
    saved: list[float] = []
    first: dict[str, list[float]] = {"always": [], "never": []}
    for turn in range(ROUNDS):
        for how in ("always", "never") if turn % 2 == 0 else ("never", "always"):
            records = train(
                folder,
                f"rehearsed-{size}-{strategy}-{how}-{turn}",
                size,
                strategy,
                ranks,
                train={"steps": 2, "global_batch": 8, "micro_batch": 2, "rehearse": how},
                checkpoint={"export": "none", "at_end": False},
            )
            first[how].append(next(r["seconds"] for r in records if r.get("step") == 1))
            for record in records:
                if record.get("event") == "rehearsal":
                    took.append(record["seconds"])
                    saved.append(record["took_seconds"]["save"])
    before, after = (statistics.median(first[how]) for how in ("never", "always"))
    row = (
        f"| {size} | {strategy} | {statistics.median(took):.2f} | {statistics.median(saved):.2f} "
        f"| {after:.2f} | {before:.2f} |"
    )
    print(row, flush=True)
    return row


def main() -> None:
    """Print the tables, and write them where asked."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export = ["benchmark", "export", "basics", "--count", "2000", "--out", str(folder / "rows.jsonl")]
        subprocess.run([sys.executable, "-m", "engine", *export], check=True, cwd=ROOT)
        for size in SIZES:
            model(folder, size)
        saves = [
            row
            for size in SIZES
            for strategy, ranks in CASES
            for row in saving(folder, size, strategy, ranks)
        ]
        rehearsals = [rehearsing(folder, "40M", strategy, ranks) for strategy, ranks in CASES]
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    about = (
        f"Full fine-tunes in bf16 over fp32 masters with AdamW, CPU ranks of one thread (none: one rank, else two), "
        f"4 rows of 128 tokens a step, a checkpoint every {EVERY} steps, {ROUNDS} rounds in turns, medians. Held up: "
        "from the end of a step until all ranks go on. There after: from the same moment until the checkpoint is "
        "published. A step: mean over the run, saves included. Share: of the time, at this interval of saves, that the "
        "training was held up. On CPU the writing takes cores from the training, which a GPU's host has to spare; no "
        "GPU was at hand."
    )
    text = f"""# What saves and the rehearsal cost

`{command()}`

{prose(facts() + ". " + versions + ".")}

{prose(about)}

## Saves

| weights | strategy | save | held up, ms | there after, s | a step, ms | share held up |
|---|---|---|---|---|---|---|
{chr(10).join(saves)}

## The rehearsal

{prose("Seconds of the whole rehearsal, of the save in it, and of the first step with and without one before it.")}

| weights | strategy | rehearsal | its save | first step after it | first step without |
|---|---|---|---|---|---|
{chr(10).join(rehearsals)}
"""
    if "--write" in sys.argv:
        (ROOT / "docs" / "results" / "upkeep.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
