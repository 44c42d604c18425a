"""One rank of a peer's training: transformers' Trainer or TRL's SFTTrainer, over the rows and the model of a folder.

Started by `torchrun` (see benchmarks/trainers.py): python rivals/trainer.py hf|trl padded|packed FOLDER STEPS ROWS.
Rank 0 prints one line of JSON: strategy in force, tokens and seconds of each step.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    DataCollatorWithFlattening,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

LENGTH = 1024
IGNORED = -100


class Steps(TrainerCallback):
    """When each step ended, and how many tokens had been seen by then, padding left out."""

    def __init__(self) -> None:
        self.borders: list[tuple[float, int]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Called on every rank after the optimizer."""
        self.borders.append((time.monotonic(), int(state.num_input_tokens_seen)))


def settings(folder: Path, steps: int, rows: int) -> dict[str, Any]:
    """What both are asked: the same work, and nothing that Temper does not do either."""
    return {
        "output_dir": str(folder / "peer"),
        "max_steps": steps,
        "per_device_train_batch_size": rows,
        "learning_rate": 1e-4,
        "max_grad_norm": 1.0,
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "ddp_find_unused_parameters": False,
        "include_num_input_tokens_seen": "non_padding",
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "train_sampling_strategy": "sequential",
    }


def plain(folder: Path, packed: bool, steps: int, rows: int, seen: Steps) -> Trainer:
    """transformers' Trainer with its own collators: padded to the longest of a batch, or flattened to one row."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")

    def encode(row: dict[str, str]) -> dict[str, list[int]]:
        prompt = tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
        rest = tokenizer(row["completion"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        return {"input_ids": prompt + rest, "labels": [IGNORED] * len(prompt) + rest}

    data = Dataset.from_json(str(folder / "drawn.jsonl")).map(encode, remove_columns=["prompt", "completion"])
    collator = DataCollatorWithFlattening() if packed else DataCollatorForSeq2Seq(tokenizer)
    return Trainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32),
        args=TrainingArguments(**settings(folder, steps, rows)),
        train_dataset=data,
        data_collator=collator,
        processing_class=tokenizer,
        callbacks=[seen],
    )


def trl(folder: Path, packed: bool, steps: int, rows: int, seen: Steps) -> Trainer:
    """TRL's SFTTrainer with its defaults: the chunked loss, best-fit packing where asked."""
    from trl import SFTConfig, SFTTrainer  # type: ignore[import-not-found]

    return SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32),
        args=SFTConfig(**settings(folder, steps, rows), max_length=LENGTH, packing=packed),
        train_dataset=Dataset.from_json(str(folder / "drawn.jsonl")),
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        callbacks=[seen],
    )


def main() -> None:
    """Train, and tell."""
    kind, shape, folder, steps, rows = sys.argv[1:]
    transformers.logging.set_verbosity_error()
    seen = Steps()
    made = {"hf": plain, "trl": trl}[kind](Path(folder), shape == "packed", int(steps), int(rows), seen)
    made.train()
    if os.environ["RANK"] == "0":
        wrapped = type(made.model_wrapped).__name__
        told = {"strategy": wrapped, "ranks": made.accelerator.num_processes, "borders": seen.borders}
        print(json.dumps(told), flush=True)
    # A group that is left to the interpreter's end may take the process with it (SIGABRT).
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
