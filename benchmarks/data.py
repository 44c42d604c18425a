"""How full packed rows are, how fast rows become tokens, and what the loader takes of a step.

Run: TEMPER_DATA=/path/to/files python benchmarks/data.py [--write]. Prints tables; --write also puts them in
docs/results/data.md.
"""

from __future__ import annotations

import gzip
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from engine.config import Run
from engine.data import Loader, load_tokenizer, prepare
from engine.data.pack import best_fit

ROOT = Path(__file__).parent.parent
BASE = ROOT / "configs" / "tiny" / "base"
LENGTHS = (1024, 2048, 4096)
SYNTHETIC = 100_000
STEPS = 100
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


def run(file: Path, length: int, processes: int, micro: int = 4) -> Run:
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
            },
            "train": {"steps": STEPS, "global_batch": 8, "micro_batch": micro},
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


def main() -> None:
    """Print the tables, and write them where asked."""
    named = os.environ.get("TEMPER_DATA")
    if not named:
        sys.exit("set TEMPER_DATA to the folder of the field's files")
    sets = texts(Path(named))
    with tempfile.TemporaryDirectory() as name:
        full, fast = packed(Path(name), sets), rates(Path(name), sets)
    text = "\n".join(
        (
            "# Data: packing, tokenising, loading",
            "",
            f"`TEMPER_DATA=... python benchmarks/data.py`, {datetime.now(UTC):%Y-%m-%d}, Python",
            f"{platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}, numpy {np.__version__};",
            "tokenizer of `configs/tiny/base`. Aim: rows at least 99 % full.",
            "Seconds are of one try on a machine that others used too.",
            "",
            "## Share of the places of packed rows that hold a token, by `data.max_length`",
            "",
            *full,
            "",
            "## Time",
            "",
            *fast,
            "",
            "Every start reads and encodes all rows again, in each rank: nothing is cached, and all rows are held",
            "in memory.",
            "",
        )
    )
    print(text)
    if "--write" in sys.argv:
        (ROOT / "docs" / "results" / "data.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
