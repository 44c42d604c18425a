"""Real tokenizers, trained here in milliseconds, and runs that point at files of rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from engine.config import Run

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
)

CORPUS = [
    "def add(a, b):\n    return a + b\n",
    "def keep_even(values):\n    return [value for value in values if value % 2 == 0]\n",
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n",
    "Write a function that returns the sum of a list. user assistant system\n\n",
    "for index, name in enumerate(names):\n        print(index, name)\n",
] * 8


# How Llama 3 and Qwen split text; StarCoder splits as GPT-2 did.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_level(
    specials: list[str],
    *,
    bos: str | None,
    eos: str,
    pad: str | None,
    template: str | None,
    split: str | None,
) -> Any:
    """A byte-level BPE like those of Qwen, StarCoder and Llama 3."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if split:
        core.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(split), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    core.train_from_iterator(CORPUS, trainer)
    core.add_special_tokens([AddedToken(token, special=True) for token in specials])
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
    names = {"bos_token": bos, "eos_token": eos, "pad_token": pad}
    made = PreTrainedTokenizerFast(tokenizer_object=core, **{k: v for k, v in names.items() if v})
    made.chat_template = template
    return made


@pytest.fixture(scope="session")
def chatml() -> Any:
    """Qwen's kind: no BOS, ChatML, pad is not eos, fill-in-the-middle tokens."""
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
    specials += ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]
    return _byte_level(specials, bos=None, eos="<|endoftext|>", pad="<|pad|>", template=CHATML, split=SPLIT)


@pytest.fixture(scope="session")
def llama3() -> Any:
    """Llama 3's kind: the tokenizer adds BOS, the template writes it too, no pad token."""
    specials = ["<|begin|>", "<|end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    return _byte_level(specials, bos="<|begin|>", eos="<|end|>", pad=None, template=LLAMA3, split=SPLIT)


@pytest.fixture(scope="session")
def starcoder() -> Any:
    """StarCoder's kind: one token is eos, bos and pad, no chat template."""
    specials = ["<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>"]
    return _byte_level(
        specials, bos=None, eos="<|endoftext|>", pad="<|endoftext|>", template=None, split=None
    )


@pytest.fixture(scope="session")
def codellama() -> Any:
    """Code Llama's kind: SentencePiece habits (a space before every text, bytes), own sentinels."""
    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    sentinels = ["▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"]
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    lines = [line for text in CORPUS for line in text.splitlines()]
    core.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=520, special_tokens=specials, show_progress=False)
    )
    # Bytes are ordinary tokens of the model; only the trainer has to reserve them.
    state = json.loads(core.to_str())
    state["added_tokens"] = [
        token for token in state["added_tokens"] if not token["content"].startswith("<0x")
    ]
    core = Tokenizer.from_str(json.dumps(state))
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in sentinels])
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))]
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    made.chat_template = LLAMA2
    return made


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write rows (or raw lines) as JSONL and give the path."""

    def _write(rows: list[Any], name: str = "rows.jsonl") -> str:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (tmp_path / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return str(tmp_path / name)

    return _write


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Run]:
    """Builds a run over sources."""
    return _run


def _run(
    *paths: str | dict[str, Any], train: dict[str, Any] | None = None, seed: int = 0, **data: Any
) -> Run:
    """A run over these sources."""
    sources = [{"path": path} if isinstance(path, str) else path for path in paths]
    settings = {"global_batch": 4, "micro_batch": 1, **(train or {})}
    return Run.model_validate(
        {
            "output": "runs/none",
            "seed": seed,
            "model": {"path": "none"},
            "data": {"train": sources, "max_length": 128, **data},
            "train": settings,
        }
    )
