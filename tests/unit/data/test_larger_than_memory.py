"""Rows that take more memory than a process may have are encoded, kept and trained on, and not without the cache."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# What a process may have beside what libraries and tokenizer take, and the text of the rows, in MiB.
ROOM, TEXT = 96, 96

_START = """
import resource, sys
from engine.config import load
from engine.data import load_tokenizer, prepare
run = load(sys.argv[1]).run
tokenizer = load_tokenizer(run)
warm = run.model_copy(update={"data": run.data.model_copy(update={
    "train": (run.data.train[0].model_copy(update={"path": sys.argv[2]}),), "cache": "none"})})
prepare(warm, tokenizer)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
held = int(status["VmData"].split()[0]) << 10
limit = held + (int(sys.argv[3]) << 20)
# Private memory alone: pages of mapped files are the disk's.
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
prepared = prepare(run, tokenizer)
tokens = sum(batch.tokens for step in range(200) for batch in prepared.train.micro_batches(step))
print(prepared.facts["train"]["rows"], prepared.facts["train"]["tokens"], tokens, prepared.origin.split()[0])
"""


@pytest.mark.slow
def test_rows_larger_than_memory_are_trained_on(tmp_path: Path) -> None:
    body = "".join(f"    value_{n} = {n} + value_{n} * {n % 7}\n" for n in range(60))
    row = len(json.dumps({"text": body})) + 20
    rows = (TEXT << 20) // row
    with (tmp_path / "rows.jsonl").open("w") as file:
        for n in range(rows):
            file.write(json.dumps({"text": f"def f{n}():\n{body}"}) + "\n")
    (tmp_path / "few.jsonl").write_text(json.dumps({"text": body}) + "\n")
    base = Path(__file__).parents[3] / "configs" / "tiny" / "base"

    def start(cache: str) -> subprocess.CompletedProcess[str]:
        tree = {
            "output": str(tmp_path / "out"),
            "model": {"path": str(base)},
            "data": {
                "train": [{"path": str(tmp_path / "rows.jsonl")}],
                "max_length": 2048,
                "cache": cache,
                "decontaminate": False,
            },
            "train": {"global_batch": 8, "micro_batch": 1},
        }
        (tmp_path / "run.yaml").write_text(json.dumps(tree))
        argv = [
            sys.executable,
            "-c",
            _START,
            *map(str, (tmp_path / "run.yaml", tmp_path / "few.jsonl", ROOM)),
        ]
        return subprocess.run(argv, capture_output=True, text=True)

    first, second, without = (
        start(cache) for cache in (str(tmp_path / "kept"), str(tmp_path / "kept"), "none")
    )
    assert first.returncode == 0, first.stderr
    assert second.returncode == 0, second.stderr
    told = [each.stdout.split() for each in (first, second)]
    assert [each.pop() for each in told] == ["encoded,", "kept"] and told[0] == told[1]
    kept = int(told[0][1]) * 5  # four bytes a token, one of the mask
    assert int(told[0][0]) == rows and kept > 2 * ROOM << 20
    assert without.returncode != 0 and "MemoryError" in without.stderr
