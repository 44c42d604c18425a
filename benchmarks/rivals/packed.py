"""TRL's SFTTrainer on packed rows of text on one device: full, LoRA or QLoRA, as benchmarks/gpu/training.py asks.

Run: python rivals/packed.py JSON, an object of `folder`, `model`, `kind`, `micro`, `batch`, `length`, `steps` and
`checkpointing`. Prints one line of JSON: tokens a second after the first step, and the peak of CUDA's allocated tensors
in GiB.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from peft import LoraConfig
from trainer import Steps  # type: ignore[import-not-found]
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig


def made(wish: dict[str, Any], seen: Steps) -> Any:
    """The trainer: TRL's defaults but for what the case says."""
    from trl import SFTConfig, SFTTrainer  # type: ignore[import-not-found]

    gpu, full = torch.cuda.is_available(), wish["kind"] == "full"
    quantised = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(
        wish["model"],
        dtype=torch.bfloat16,
        quantization_config=quantised if wish["kind"] == "qlora" else None,
        device_map={"": 0} if gpu else None,
    )
    settings = SFTConfig(
        output_dir=str(Path(wish["folder"]) / "peer"),
        max_steps=wish["steps"],
        per_device_train_batch_size=wish["micro"],
        gradient_accumulation_steps=wish["batch"] // wish["micro"],
        learning_rate=1e-5,
        max_length=wish["length"],
        packing=True,
        bf16=True,
        use_cpu=not gpu,
        optim="adamw_8bit" if full and gpu else "adamw_torch",
        gradient_checkpointing=wish["checkpointing"],
        gradient_checkpointing_kwargs={"use_reentrant": False},
        include_num_input_tokens_seen="non_padding",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    adapter = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    return SFTTrainer(
        model=model,
        args=settings,
        train_dataset=Dataset.from_json(str(Path(wish["folder"]) / "rows.jsonl")),
        processing_class=AutoTokenizer.from_pretrained(wish["model"]),
        peft_config=None if full else adapter,
        callbacks=[seen],
    )


def main() -> None:
    """Train, and tell."""
    transformers.logging.set_verbosity_error()
    seen = Steps()
    made(json.loads(sys.argv[1]), seen).train()
    (first, before), (last, after) = seen.borders[0], seen.borders[-1]
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
    print(json.dumps({"speed": (after - before) / (last - first), "peak": peak}), flush=True)


if __name__ == "__main__":
    main()
