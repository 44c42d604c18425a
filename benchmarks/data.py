"""How full packed rows are, how fast rows become tokens, what kept rows save, and what the loader takes of a step.

Run: TEMPER_DATA=/path/to/files python benchmarks/data.py [--write]. Prints tables; --write also puts them in
docs/results/data.md.
"""

from __future__ import annotations

import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
from executors.machine import ROOT, command, facts, prose
from strategies import run as train
from strategies import wish

from engine.config import Run, dump
from engine.data import Loader, load_tokenizer, prepare
from engine.data.pack import best_fit

BASE = ROOT / "configs" / "tiny" / "base"
LENGTHS = (1024, 2048, 4096)
SYNTHETIC = 100_000
STEPS, ROUNDS, COPIES = 100, 3, 8
PACKAGES = ("numpy", "tokenizers", "transformers", "torch")
START = """
import sys, time
import torch, transformers
from pathlib import Path
from engine.config import load
from engine.data import load_tokenizer, prepare

def memory(key):
    return int(Path("/proc/self/status").read_text().split(key)[1].split()[0]) / 1024

run = load(sys.argv[1]).run
tokenizer = load_tokenizer(run)
before, began = memory("VmRSS:"), time.perf_counter()
prepared = prepare(run, tokenizer)
for step in range(20):
    prepared.train.micro_batches(step)
print(time.perf_counter() - began, memory("VmHWM:") - before)
"""
"""A start as a process of its own: seconds until rows are there, and MiB it took at its most."""
LANGUAGES = ("cpp", "java", "js", "lua", "pl", "rs", "sh", "ts")


def lines(path: Path) -> Iterator[dict[str, object]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        yield from map(json.loads, stream)


def texts(data: Path) -> dict[str, list[str]]:
    """The field's texts by set."""
    tasks = lines(data / "humaneval" / "HumanEval.jsonl.gz")
    found = {
        "CodeGen programs": [
            f"{row['prompt']}{sample}"
            for row in lines(data / "codegen16b" / "samples.jsonl.gz")
            for sample in row["samples"]  # type: ignore[attr-defined]
        ],
        "HumanEval": [f"{row['prompt']}{row['canonical_solution']}" for row in tasks],
        "MBPP": [f"{row['text']}\n{row['code']}" for row in lines(data / "mbpp" / "mbpp.jsonl.gz")],
    }
    found["MultiPL-E"] = [
        f"{row['prompt']}{row['tests']}"
        for language in LANGUAGES
        for row in lines(data / "multipl_e" / f"humaneval-{language}.jsonl.gz")
    ]
    return found


def run(file: Path, length: int, processes: int, cache: str = "none") -> Run:
    return Run.model_validate(
        {
            "output": str(file.with_suffix("")),
            "model": {"path": str(BASE)},
            "data": {
                "train": [{"path": str(file), "format": "text"}],
                "max_length": length,
                "overlong": "truncate",
                "decontaminate": False,
                "processes": processes,
                "cache": cache,
            },
            "train": {"steps": STEPS, "global_batch": 8, "micro_batch": 4},
        }
    )


def fullness(loader: Loader, length: int) -> float:
    """Share of the places of all rows of the first epoch that hold a token."""
    plan = loader.plan(0)
    return float(loader.lengths(plan.order).sum() / (len(plan) * length))


def synthetic(length: int) -> float:
    """The same of lognormal lengths (median 300 tokens, sigma 1), cut to `length`."""
    drawn = np.random.default_rng(0).lognormal(np.log(300), 1.0, SYNTHETIC)
    lengths = np.clip(drawn, 1, length).astype(np.int64)
    return float(lengths.sum() / (len(best_fit(lengths, length)) * length))


def write(folder: Path, name: str, rows: list[str]) -> Path:
    file = folder / f"{name.replace(' ', '-')}.jsonl"
    file.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows if row), encoding="utf-8")
    return file


def packed(folder: Path, sets: dict[str, list[str]]) -> list[str]:
    tokenizer = load_tokenizer(run(write(folder, "first", ["x"]), 1024, 1))
    found = ["| texts | rows | " + " | ".join(map(str, LENGTHS)) + " |", "|---|---|---|---|---|"]
    for name, rows in sets.items():
        file = write(folder, name, rows)
        shares = [fullness(prepare(run(file, each, 1), tokenizer).train, each) for each in LENGTHS]
        found.append(f"| {name} | {len(rows):,} | " + " | ".join(f"{share:.2%}" for share in shares) + " |")
    shares = [synthetic(each) for each in LENGTHS]
    found.append(f"| lognormal | {SYNTHETIC:,} | " + " | ".join(f"{share:.2%}" for share in shares) + " |")
    return found


def rates(folder: Path, sets: dict[str, list[str]]) -> list[str]:
    rows = sets["CodeGen programs"]
    file = write(folder, "rates", rows)
    tokenizer = load_tokenizer(run(file, 1024, 1))
    found = ["| what | seconds | tokens/s |", "|---|---|---|"]
    for processes in (1, 2):
        began = time.perf_counter()
        prepared = prepare(run(file, 1024, processes), tokenizer)
        taken = time.perf_counter() - began
        tokens = sum(len(corpus.tokens) for corpus in prepared.corpora)
        what = f"a start on {len(rows):,} programs, data.processes {processes}"
        found.append(f"| {what} | {taken:.1f} | {tokens / taken:,.0f} |")
    began = time.perf_counter()
    total = sum(batch.tokens for step in range(STEPS) for batch in prepared.train.micro_batches(step))
    taken = time.perf_counter() - began
    what = f"the loader, {STEPS} steps of 8 rows x 1024"
    found.append(f"| {what} | {taken:.3f} ({taken / STEPS * 1e3:.2f} ms a step) | {total / taken:,.0f} |")
    return found


def starts(folder: Path, sets: dict[str, list[str]]) -> list[str]:
    """Starts on many rows, as processes of their own: encoded in memory, encoded and kept, and found kept."""
    rows = [f"# {copy}\n{text}" for copy in range(COPIES) for text in sets["CodeGen programs"]]
    file = write(folder, "starts", rows)
    found = ["| start | seconds | MiB |", "|---|---|---|"]
    taken: dict[str, list[tuple[float, float]]] = {}
    for turn in range(ROUNDS):
        kept = str(folder / f"kept-{turn}")
        ways = [("nothing kept", "none"), ("the first, which keeps", kept), ("the second, which finds", kept)]
        for name, cache in ways:
            wished = folder / "start.yaml"
            wished.write_text(dump(run(file, 1024, 1, cache)))
            argv = [sys.executable, "-c", START, str(wished)]
            out = subprocess.run(argv, check=True, capture_output=True, text=True, cwd=ROOT).stdout
            seconds, memory = map(float, out.split()[-2:])
            taken.setdefault(name, []).append((seconds, memory))
    for name, pairs in taken.items():
        seconds, memory = (statistics.median(values) for values in zip(*pairs, strict=True))
        found.append(f"| {name} | {seconds:.2f} | {memory:,.0f} |")
    found.append("")
    found.append(f"{len(rows):,} rows, {file.stat().st_size / 2**20:,.0f} MiB of JSONL, medians of {ROUNDS}.")
    return found


def share(folder: Path) -> list[str]:
    """What the data phase takes of real steps of the embedded model, on one rank and on two."""
    found = ["| ranks | steps | data, ms a step | a step, ms | share |", "|---|---|---|---|---|"]
    export = ["benchmark", "export", "basics", "--count", "2000", "--out", str(folder / "rows.jsonl")]
    subprocess.run([sys.executable, "-m", "engine", *export], check=True, cwd=ROOT)
    for ranks in (1, 2):
        strategy = "none" if ranks == 1 else "zero2"
        file = wish(
            folder,
            f"share-{ranks}",
            train={
                "steps": STEPS,
                "global_batch": 8,
                "micro_batch": 2,
                "learning_rate": 1e-3,
                "log_every": 10,
            },
            parallel={"strategy": strategy, "processes": ranks, "device": "cpu", "threads": 1},
            checkpoint={"export": "none", "at_end": False},
        )
        train(file)
        card = json.loads((file.with_suffix("") / "perf.json").read_text())
        spent = {
            name: card["seconds"][name] for name in card["seconds"] if name not in ("first step", "save")
        }
        whole, data = sum(spent.values()), spent["data"]
        found.append(
            f"| {ranks} | {STEPS} | {1000 * data / (STEPS - 1):.2f} | {1000 * whole / (STEPS - 1):.0f} "
            f"| {data / whole:.2%} |"
        )
    return found


def main() -> None:
    """Print the tables, and write them where asked."""
    named = os.environ.get("TEMPER_DATA")
    if not named:
        sys.exit("set TEMPER_DATA to the folder of the field's files")
    sets = texts(Path(named))
    with tempfile.TemporaryDirectory() as name:
        full, fast = packed(Path(name), sets), rates(Path(name), sets)
        begun, taken = starts(Path(name), sets), share(Path(name))
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    text = "\n".join(
        (
            "# Data: packing, tokenising, loading",
            "",
            f"`TEMPER_DATA=... {command()}`",
            "",
            prose(facts() + ". " + versions + "; tokenizer of `configs/tiny/base`."),
            "",
            "## Share of the places of packed rows that hold a token, by `data.max_length`",
            "",
            "Aim: at least 99 %.",
            "",
            *full,
            "",
            "## Time",
            "",
            *fast,
            "",
            "## Starts",
            "",
            prose(
                "Each a process of its own, from the run file to the first 20 steps' batches, libraries loaded before; "
                "MiB at its most above what it held then (mapped pages that were read count as held)."
            ),
            "",
            *begun,
            "",
            "## The loader's share of a step",
            "",
            prose(
                "Phase `data` of real trainings of the embedded model in bf16, first step left out. Aim: below 1 %."
            ),
            "",
            *taken,
            "",
        )
    )
    print(text)
    if "--write" in sys.argv:
        (ROOT / "docs" / "results" / "data.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
