"""What decides a run's tokens, as one SHA-256: the files' bytes, how rows are read, the tokenizer, the settings."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine.config import Run
from engine.data import sources
from engine.data.decontaminate import Texts
from engine.data.sources import Stream
from engine.errors import WishError

VERSION = 1
"""Of the code that makes tokens, masks and names of rows, and of what is kept of them: raise it with any change."""

_PROBE = (
    "def f(x):\n    return 'ü' + x\n",
    " \tx  = 1\r\n\n",
    "<|im_start|>a<|im_end|></s><s><|endoftext|> b",
)


@dataclass(frozen=True, slots=True)
class Content:
    """The files of a run's sources, by source, as they were when they were hashed."""

    hashes: tuple[dict[str, str], ...]
    stamps: tuple[tuple[int, ...], ...]

    def demand_unchanged(self, streams: Sequence[Stream]) -> None:
        """Refuse rows that were read while somebody wrote: they are not those that were hashed.

        Raises:
            WishError: a file is not the one it was.
        """
        files = [file for stream in streams for file in stream.files]
        for file, before in zip(files, self.stamps, strict=True):
            if _stamp(file) != before:
                raise WishError(f"{file} was changed while it was read", "start again once it is written")


def content(streams: Sequence[Stream]) -> Content:
    """Hash the files of the sources."""
    stamps = tuple(_stamp(file) for stream in streams for file in stream.files)
    hashes = tuple({str(file): sources.sha256(file) for file in stream.files} for stream in streams)
    return Content(hashes, stamps)


def unkept(tokenizer: Any, streams: Sequence[Stream]) -> str | None:
    """Why rows cannot be found again by their content; None where they can."""
    if not getattr(tokenizer, "is_fast", False) or not type(tokenizer).__module__.startswith("transformers."):
        return f"what {type(tokenizer).__name__} does is not all in files that can be hashed"
    for stream in streams:
        if not stream.files:
            return f"{stream.source.path} has no files that can be hashed"
    return None


def rows_key(run: Run, streams: Sequence[Stream], found: Content, tokenizer: Any) -> str:
    """The key of a run's encoded rows."""
    assert run.data is not None
    data = run.data
    cut = bool(data.test_fraction or (data.validation_fraction and not data.validation))
    return _hash(
        {
            "version": VERSION,
            "libraries": [version(name) for name in ("tokenizers", "transformers", "jinja2")],
            "sources": [
                {
                    "path": stream.source.path,
                    "files": [[file if stream.local else "", digest] for file, digest in hashes.items()],
                    "set": [stream.source.name, stream.source.split],
                    "format": stream.source.format,
                    "fields": stream.source.fields,
                }
                for stream, hashes in zip(streams, found.hashes, strict=True)
            ],
            "trained_sources": len(data.train),
            "splits": [run.seed, data.validation_fraction, data.test_fraction] if cut else None,
            "tokenizer": _tokenizer(tokenizer),
            "mask_prompt": data.mask_prompt,
            "classes": [run.model.head, run.model.labels],
            "max_length": data.max_length,
            "overlong": data.overlong,
            "fim": bool(data.fim.rate),
        }
    )


def texts_key(texts: Texts) -> str:
    """The key of a comparison with held-out texts; syntax trees are those of this Python."""
    return _hash([VERSION, sys.version_info[:2], texts])


def _tokenizer(tokenizer: Any) -> dict[str, Any]:
    """All that a fast tokenizer does, wherever it lies. How it pads and cuts is asked for with every call."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    template = tokenizer.chat_template
    return {
        "class": f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}",
        "state": {name: value for name, value in state.items() if name not in ("truncation", "padding")},
        "template": template,
        # Such a template writes today's date into the rows.
        "date": date.today().isoformat() if "strftime_now" in str(template) else None,
        "special": {name: str(value) for name, value in tokenizer.special_tokens_map.items()},
        "ids": [tokenizer.bos_token_id, tokenizer.eos_token_id],
        "splits_special": getattr(tokenizer, "split_special_tokens", None),
        # What the above does not tell, because a library moved it elsewhere, shows in what it does.
        "probe": [tokenizer(text)["input_ids"] for text in _PROBE],
    }


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=list).encode()).hexdigest()


def _stamp(file: Path) -> tuple[int, ...]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino
