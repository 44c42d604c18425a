"""How fast one GPU trains models of real shapes with random weights: tokens a second, MFU, peak memory.

Run: python benchmarks/gpu/training.py [--write] [--only NAME] [--folder WORK]. Each case is one ordinary training by
the launch line of `temper train`, with packed rows of 4,096 tokens; steps after the first count. Where TRL is installed
its SFTTrainer trains the same shape after it. --write puts the table in docs/results/gpu_training.md. --small runs tiny
shapes on a CPU, to try the script itself.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(1, str(Path(__file__).parent.parent.parent))

from executors.machine import ROOT, command, facts, prose
from trainers import functions

from engine.config import load
from launch.command import plan

LENGTH, STEPS, ROWS = 4096, 12, 6000
PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "bitsandbytes",
    "flash-attn",
    "triton",
    "torchao",
    "trl",
)
LLAMA_1B = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
}
LLAMA_3B = {
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
}
LLAMA_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
SMALL = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 8}


@dataclass(frozen=True, slots=True)
class Case:
    """A training: the model's shape, the method, rows of a micro-batch and of a step, and what it is to reach."""

    name: str
    shape: dict[str, int]
    tied: bool
    kind: str
    micro: int
    batch: int
    bar: str
    vocabulary: int = 128_256
    length: int = LENGTH
    checkpointing: bool = True
    compile: bool = False
    float8: str = "none"

    def met(self, speed: float, mfu: float | None) -> bool | None:
        """Whether the bar is met; None where what it is stated in was not measured."""
        figure, unit = float(self.bar.split()[0].replace(",", "")), self.bar.split(maxsplit=1)[1]
        if unit.startswith("%"):
            return None if mfu is None else 100 * mfu >= figure
        return speed >= figure


CASES = (
    Case("1B full", LLAMA_1B, True, "full", 2, 16, "50 % MFU"),
    Case("1B full, compiled", LLAMA_1B, True, "full", 2, 16, "50 % MFU", compile=True),
    Case("3B full", LLAMA_3B, True, "full", 1, 8, "50 % MFU"),
    Case("3B full, compiled", LLAMA_3B, True, "full", 1, 8, "50 % MFU", compile=True),
    Case(
        "3B full, compiled, 8 bits",
        LLAMA_3B,
        True,
        "full",
        1,
        8,
        "50 % MFU",
        compile=True,
        float8="rowwise_with_gw_hp",
    ),
    Case("8B lora", LLAMA_8B, False, "lora", 1, 8, "13,000 tokens/s"),
    Case("8B qlora", LLAMA_8B, False, "qlora", 1, 8, "10,000 tokens/s"),
)


def small(case: Case) -> Case:
    """The same case in a shape for a CPU."""
    return replace(case, shape=SMALL, vocabulary=2048, length=256, micro=1, batch=2)


def weights(case: Case, folder: Path) -> Path:
    """Random bf16 weights of a case's shape with the embedded tokenizer, made once for cases that share them."""
    target = folder / f"{case.shape['hidden_size']}x{case.shape['num_hidden_layers']}-{case.vocabulary}"
    if (target / "config.json").exists():
        return target
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "configs" / "tiny" / "base")
    config = LlamaConfig(
        **case.shape,
        vocab_size=case.vocabulary,
        num_key_value_heads=8,
        max_position_embeddings=case.length,
        tie_word_embeddings=case.tied,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    del model
    if device == "cuda":
        torch.cuda.empty_cache()
    return target


def wish(case: Case, folder: Path, *, device: str, steps: int) -> Path:
    """The run file of a case."""
    tree: dict[str, Any] = {
        "output": str(folder / "run"),
        "model": {
            "path": str(weights(case, folder)),
            "activation_checkpointing": case.checkpointing,
            "compile": case.compile,
        },
        "adapter": {"kind": case.kind} | ({"rank": 16, "dropout": 0.0} if case.kind != "full" else {}),
        "data": {
            "train": [{"path": str(folder / "rows.jsonl"), "format": "text"}],
            "max_length": case.length,
            "overlong": "truncate",
            "decontaminate": False,
        },
        "train": {
            "steps": steps,
            "global_batch": case.batch,
            "micro_batch": case.micro,
            "learning_rate": 1e-5,
            "optimizer": "adamw_8bit" if case.kind == "full" and device == "cuda" else "adamw",
            "rehearse": "always",
        },
        "parallel": {
            "strategy": "none",
            "device": device,
            "precision": "bf16",
            "float8": case.float8,
        },
        "checkpoint": {"at_end": False, "export": "none", "resume": "never"},
    }
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def train(case: Case, folder: Path, *, device: str, steps: int) -> str:
    """A table row of one training."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    file = wish(case, folder, device=device, steps=steps)
    made = plan(load(file).run, "train", str(file))
    argv = [str(Path(sys.executable).with_name(made.argv[0])), *made.argv[1:]]
    done = subprocess.run(
        argv, env=os.environ | dict(made.environment), capture_output=True, text=True, cwd=ROOT
    )
    if done.returncode:
        told = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
        return f"| {case.name} | {case.micro} x {case.length} | | | | | | {case.bar}: failed: {told[:200]} |"
    card = json.loads((folder / "run" / "perf.json").read_text())
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    peak = max(record["memory_mb"] for record in records if "memory_mb" in record) / 1024
    rehearsal = next(record["seconds"] for record in records if record.get("event") == "rehearsal")
    mfu = card["mfu"] and card["mfu"]["6N"]
    ceiling = card["ceiling_share"]
    met = {True: "met", False: "missed", None: "not measured"}[case.met(card["tokens_per_second"], mfu)]
    return (
        f"| {case.name} | {case.micro} x {case.length} | {card['tokens_per_second']:,.0f} "
        f"| {'' if mfu is None else f'{mfu:.1%}'} | {'' if ceiling is None else f'{ceiling:.1%}'} | {peak:.1f} "
        f"| {rehearsal:.1f} | {case.bar}: {met} |"
    )


def rival(case: Case, folder: Path, *, steps: int) -> str:
    """A table row of the same shape through TRL's SFTTrainer; no part of it where Temper was compiled."""
    wish = {
        "folder": str(folder),
        "model": str(weights(case, folder)),
        "kind": case.kind,
        "micro": case.micro,
        "batch": case.batch,
        "length": case.length,
        "steps": steps,
        "checkpointing": case.checkpointing,
    }
    script = ROOT / "benchmarks" / "rivals" / "packed.py"
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(wish)], capture_output=True, text=True, cwd=ROOT
    )
    if done.returncode:
        told = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
        return f"| {case.name}, TRL | {case.micro} x {case.length} | | | | | | failed: {told[:200]} |"
    found = json.loads(done.stdout.strip().splitlines()[-1])
    peak = "" if found["peak"] is None else f"{found['peak']:.1f}"
    return f"| {case.name}, TRL | {case.micro} x {case.length} | {found['speed']:,.0f} | | | {peak} | | |"


def versions() -> str:
    """Of what is there of the packages that matter."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"no {package}")
    return ", ".join(found)


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--write", action="store_true", help="replace docs/results/gpu_training.md")
    parser.add_argument("--small", action="store_true", help="tiny shapes on a CPU")
    parser.add_argument("--only", help="one case by its name")
    parser.add_argument("--folder", type=Path, help="keeps weights between calls; 20 GB")
    asked = parser.parse_args()
    if asked.write and (asked.small or asked.only):
        parser.error("--write replaces the page of the whole benchmark: leave out --small and --only")
    if not asked.small and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device; --small tries the script on a CPU")
    cases = [small(case) if asked.small else case for case in CASES if asked.only in (None, case.name)]
    device, steps = ("cpu", 3) if asked.small else ("cuda", STEPS)
    with tempfile.TemporaryDirectory() as name:
        folder = asked.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        texts = [row["prompt"] + row["completion"] for row in functions()]
        many = (texts * (1 + ROWS // len(texts)))[:ROWS]
        (folder / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in many))
        rows = []
        for case in cases:
            rows.append(train(case, folder, device=device, steps=steps))
            print(rows[-1], flush=True)
            if find_spec("trl") and not case.compile:
                rows.append(rival(case, folder, steps=steps))
                print(rows[-1], flush=True)
    gpu = torch.cuda.get_device_name() if device == "cuda" else "no GPU"
    about = (
        f"Llama shapes with random weights, bf16, packed rows of {LENGTH} tokens, {STEPS} steps of which the first is "
        "left out, activation checkpointing; full: 8-bit AdamW; adapters of rank 16 on all linear layers. Tokens/s "
        "counts tokens of samples. MFU is at 6N with causal attention of each sample, over the vendor's dense 16-bit "
        "peak. Memory is CUDA's peak of allocated tensors. The tokenizer is the embedded one, so that few of the "
        "embedding's rows are met. Rows of TRL are its SFTTrainer (packing, its own loss, transformers' sdpa) on the "
        "same model, rows and settings."
    )
    text = f"""# Training on one GPU

`{command()}`

{prose(gpu + ". " + facts() + ". " + versions() + ".")}

{prose(about)}

| case | micro-batch | tokens/s | MFU (6N) | of the measured ceiling | peak, GiB | rehearsal, s | aim |
|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}
"""
    print(text)
    if asked.write:
        (ROOT / "docs" / "results" / "gpu_training.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
