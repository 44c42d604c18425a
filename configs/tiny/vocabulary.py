"""The embedded base model's tokenizer: byte-level BPE for Python, made from the pretraining corpus.

    python configs/tiny/vocabulary.py --corpus runs/tiny/corpus --out configs/tiny/base

Choices, each measured or needed: digits stand alone, so that numbers are spelled and not memorised; a newline is
always its own token, so that prompt and completion join at any line end without changing their tokens; a space
belongs to the word before it, so that a name, letter or digit is the same token wherever it stands (a model of this
size learns to copy constants from docstring to code several times sooner so than with spaces before words); a run of
spaces is one token, so that indentation costs one; bytes are the fallback, so that any text survives a round trip.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = (
    "<|endoftext|>",
    "<|pad|>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|im_start|>",
    "<|im_end|>",
)
PIECES = r"\n| {2,}|\p{L}+(?: (?! ))?|\p{N}|[^\s\p{L}\p{N}]+(?: (?! ))?|\s"
INDENTS = tuple(" " * (4 * depth) for depth in range(1, 6))
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def texts(corpus: Path, pretext_rows: int) -> Iterator[str]:
    """The standard library, and only so many generated programs that they do not drown it; no random words."""
    with (corpus / "stdlib.jsonl").open(encoding="utf-8") as file:
        yield from (json.loads(line)["text"] for line in file)
    with (corpus / "pretext.jsonl").open(encoding="utf-8") as file:
        rows = (row for row in map(json.loads, file) if row["family"] != "echo")
        yield from (row["prompt"] + row["completion"] for row in islice(rows, pretext_rows))


def learn(rows: Iterator[str], size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE of `size` tokens, special ones included."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(rows, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|pad|>",
        additional_special_tokens=list(SPECIAL[2:]),
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        chat_template=CHAT_TEMPLATE,
    )


def check(tokenizer: PreTrainedTokenizerFast) -> None:
    """Refuse a tokenizer that breaks what this model's users rely on."""
    for text in (
        "def f(x):\n    return x\n",
        "naïve 名 \x00\t\r\n  \u200d🙂 12345 \n\n\n    \n",
        "<|im_start|>a<|im_end|>\n",
    ):
        assert tokenizer.decode(tokenizer(text).input_ids) == text, repr(text)
    for indent in INDENTS:
        assert len(tokenizer(indent).input_ids) == 1, f"an indent of {len(indent)} is not one token"
    assert len(tokenizer("2048").input_ids) == 4 and tokenizer.pad_token_id != tokenizer.eos_token_id


def main() -> None:
    """Learn, check and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--corpus", type=Path, default=Path("runs/tiny/corpus"), help="folder made by corpus.py"
    )
    parser.add_argument("--out", type=Path, default=Path("configs/tiny/base"), help="folder to write")
    parser.add_argument("--size", type=int, default=1536, help="tokens in the vocabulary")
    parser.add_argument("--pretext-rows", type=int, default=8_000, help="generated programs to learn from")
    wish = parser.parse_args()
    tokenizer = learn(texts(wish.corpus, wish.pretext_rows), wish.size)
    check(tokenizer)
    tokenizer.save_pretrained(wish.out)
    print(f"{len(tokenizer)} tokens in {wish.out}")


if __name__ == "__main__":
    main()
