"""The run's tokenizer, with the run's chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine import hub
from engine.config import Run
from engine.errors import WishError


def load_tokenizer(run: Run, folder: str | None = None) -> Any:
    """Load the tokenizer a run names (the model's own where it names none) and give it the run's chat
    template; `folder`, e.g. a run's result, goes before both.

    Raises:
        WishError: there is no tokenizer, or the template file is missing or empty.
    """
    from transformers import AutoTokenizer

    path = folder or run.model.tokenizer or run.model.path
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path,
            revision=run.model.revision if path == run.model.path else None,
            trust_remote_code=run.model.trust_remote_code,
            local_files_only=hub.cache_only(path),
        )
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise WishError(
            f"no tokenizer could be loaded from {path} ({reason})",
            "check `model.path`, or name a tokenizer folder or hub id as `model.tokenizer`",
        ) from error
    if run.adapter.new_tokens and folder is None:
        _add_tokens(tokenizer, run.adapter.new_tokens)
    apply_template(tokenizer, run)
    return tokenizer


def _add_tokens(tokenizer: Any, words: tuple[str, ...]) -> None:
    known = sorted(set(words) & tokenizer.get_vocab().keys())
    if known:
        raise WishError(
            f"adapter.new_tokens names {', '.join(known)}, which the tokenizer has already", "leave it out"
        )
    tokenizer.add_tokens(list(words))


def apply_template(tokenizer: Any, run: Run) -> None:
    """Replace the tokenizer's chat template by the run's, if it names one; exports then carry it too."""
    if run.data is None or run.data.chat_template is None:
        return
    path = Path(run.data.chat_template).expanduser()
    if not path.is_file():
        raise WishError(f"data.chat_template {path} does not exist", "give the path of a Jinja file")
    template = path.read_text(encoding="utf-8")
    if not template.strip():
        raise WishError(f"data.chat_template {path} is empty", "give a Jinja file that renders `messages`")
    tokenizer.chat_template = template
