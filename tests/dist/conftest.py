"""Real ranks over gloo: a tiny random model, rows to learn, and the launch line a user would run."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from engine.config import load
from launch.command import plan

SECONDS = 240
Interrupt = Callable[[list[psutil.Process]], None]


@dataclass(frozen=True)
class Ended:
    """A launch that ended."""

    folder: Path
    exit_code: int
    output: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    @property
    def records(self) -> list[dict[str, Any]]:
        """What was measured of steps, events left out."""
        return [line for line in self.lines if "event" not in line]

    @property
    def performance(self) -> dict[str, Any]:
        return json.loads((self.folder / "perf.json").read_text())

    @property
    def losses(self) -> dict[int, float]:
        return {record["step"]: record["loss"] for record in self.records if "loss" in record}

    @property
    def facts(self) -> dict[str, Any]:
        return json.loads((self.folder / "facts.json").read_text())


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a two-layer Llama (`model`), its tokenizer, and rows of small functions (`train.jsonl`)."""
    folder = tmp_path_factory.mktemp("small")
    draw = random.Random(0)
    rows = [
        {
            "id": f"row-{n}",
            "prompt": f"def f{n}(x):\n",
            "completion": f"    return x {draw.choice('+-*')} {draw.randint(0, 99)}\n" * draw.randint(1, 3),
        }
        for n in range(240)
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>", "<|pad|>"], initial_alphabet=alphabet
    )
    bpe.train_from_iterator([row["prompt"] + row["completion"] for row in rows], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>", pad_token="<|pad|>")
    tokenizer.save_pretrained(str(folder / "model"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=448,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=0,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(str(folder / "model"))
    return folder


@pytest.fixture()
def wish(small: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a run file: `wish("name", train={...}, parallel={...})`; its run folder has the same name."""

    def write(name: str, **sections: dict[str, Any]) -> Path:
        tree: dict[str, Any] = {
            "output": str(tmp_path / name),
            "model": {"path": str(small / "model")},
            "data": {"train": [{"path": str(small / "train.jsonl")}], "max_length": 96},
            "train": {"steps": 6, "global_batch": 4, "learning_rate": 2e-3, "warmup_steps": 2},
            "parallel": {"device": "cpu", "threads": 1},
        }
        for section, values in sections.items():
            tree[section] = {**tree.get(section, {}), **values}
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(tree))
        return file

    return write


def command(run_file: Path) -> tuple[list[str], dict[str, str]]:
    """What `temper train` would run, and its environment."""
    made = plan(load(run_file).run, "train", str(run_file))
    argv = [str(Path(sys.executable).with_name(made.argv[0])), *made.argv[1:]]
    return argv, os.environ | dict(made.environment)


@pytest.fixture()
def launch() -> Callable[[Path], Ended]:
    """Run a run file to its end with `accelerate launch`."""

    def start(run_file: Path) -> Ended:
        argv, environment = command(run_file)
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=SECONDS)
        folder = load(run_file).run.folder
        return Ended(folder, done.returncode, done.stdout + done.stderr)

    return start


@pytest.fixture()
def interrupt() -> Callable[[Path, int, Interrupt], Ended]:
    """Start a run file, and once a step is logged do something to its processes (launcher first, then ranks)."""

    def start(run_file: Path, step: int, act: Interrupt) -> Ended:
        argv, environment = command(run_file)
        folder = load(run_file).run.folder
        with (run_file.with_suffix(".log")).open("w+") as log:
            launcher = subprocess.Popen(argv, env=environment, stdout=log, stderr=subprocess.STDOUT)
            deadline = time.monotonic() + SECONDS
            metrics = folder / "metrics.jsonl"
            while not (metrics.exists() and f'"step": {step},' in metrics.read_text()):
                assert launcher.poll() is None and time.monotonic() < deadline, log.seek(0) or log.read()
                time.sleep(0.05)
            root = psutil.Process(launcher.pid)
            family = [root, *root.children(recursive=True)]
            act(family)
            code = launcher.wait(timeout=SECONDS)
            _, alive = psutil.wait_procs(family, timeout=60)
            assert not alive, f"left behind: {alive}"
            log.seek(0)
            return Ended(folder, code, log.read())

    return start
