"""Model-shape numbers from config.json, without importing torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from engine.errors import WishError


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The numbers of a decoder that arithmetic needs (counts; `context` in tokens; None where not stated)."""

    model_type: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int | None
    tied_embeddings: bool


def shape(path: str | Path) -> ModelShape | None:
    """Shape of a local model folder; None for a hub id (nothing is downloaded to answer a question).

    Raises:
        WishError: the folder has no readable config.json, or it lacks a number every decoder has.
    """
    folder = Path(path)
    if not folder.is_dir():
        return None
    file = folder / "config.json"
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WishError(f"{folder} has no config.json", "name a folder that save_pretrained wrote") from None
    except json.JSONDecodeError as error:
        raise WishError(
            f"{file} is not valid JSON (line {error.lineno})", "download the model again"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise WishError(
            f"{file} cannot be read: {error}", "check its permissions, or download the model again"
        ) from None
    if not isinstance(raw, dict):
        raise WishError(f"{file} holds a {type(raw).__name__}, not an object", "download the model again")
    text = raw.get("text_config", raw)
    try:
        hidden = int(_first(text, "hidden_size", "n_embd", "d_model"))
        heads = int(_first(text, "num_attention_heads", "n_head"))
        return ModelShape(
            model_type=str(raw.get("model_type", "unknown")),
            layers=int(_first(text, "num_hidden_layers", "n_layer")),
            hidden=hidden,
            intermediate=int(text.get("intermediate_size") or text.get("n_inner") or 4 * hidden),
            heads=heads,
            kv_heads=int(text.get("num_key_value_heads") or heads),
            head_dim=int(text.get("head_dim") or hidden // heads),
            vocabulary=int(_first(text, "vocab_size")),
            context=text.get("max_position_embeddings") or text.get("n_positions"),
            tied_embeddings=bool(text.get("tie_word_embeddings", raw.get("tie_word_embeddings", False))),
        )
    except KeyError as error:
        raise WishError(
            f"{file} lacks {error.args[0]}", "name a decoder-only language model's folder"
        ) from None


def _first(text: dict[str, object], *names: str) -> int:
    for name in names:
        value = text.get(name)
        if isinstance(value, int):
            return value
    raise KeyError(" / ".join(names))
