"""What a reasoning model says before its answer, and the recorded rule by which it is dropped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from engine.generate.fences import fences

VERSION = 2
"""Raised whenever a rule may leave another answer of the same text; part of every `Thinking`."""

PAIRS: tuple[tuple[str, str], ...] = (
    ("<think>", "</think>"),  # DeepSeek-R1, Qwen3, QwQ, Phi-4-reasoning, GLM
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("◁think▷", "◁/think▷"),  # Kimi
)
"""What the rule `auto` knows."""


@dataclass(frozen=True, slots=True)
class Thinking:
    """A rule: which pairs of tags enclose thinking."""

    name: str
    """`auto`, `keep`, or the two tags."""
    pairs: tuple[tuple[str, str], ...]
    version: int = VERSION

    @classmethod
    def of(cls, wish: str | tuple[str, str]) -> Thinking:
        """The rule that `evaluate.thinking` names."""
        if isinstance(wish, str):
            return cls(wish, PAIRS if wish == "auto" else ())
        return cls(" ".join(wish), (wish,))

    def answer(self, text: str, *, prompt: str = "") -> str | None:
        """The answer proper: what follows the thinking.

        Thinking opens at the start of a line, or in the prompt already, where the template does it; what is
        closed though nothing opened it was opened there too, unless nothing follows it. Tags in fenced code are the
        program's own; but thinking whose only end is in fenced code ends there, as a draft may lack its last fence.

        Args:
            text: the new text.
            prompt: what was put to the model, rendered.

        Returns:
            None where the thinking never ends: there is no answer then.
        """
        closing = dict(self.pairs)
        end = next((close for opening, close in self.pairs if prompt.rstrip().endswith(opening)), None)
        kept, rest, before = "", text, ""
        while True:
            if end is not None:
                tags = re.compile(_unquoted(re.escape(end)))
                closed = next(_outside_fences(tags.finditer(rest), rest), tags.search(rest))
                if closed is None:
                    return None
                rest = rest[closed.end() :]
            # What is kept ends with a line and with no fence open, so the rest is looked at by itself.
            found = _tags(self.pairs).finditer(rest) if self.pairs else ()
            tag = next(_outside_fences(found, rest), None)
            if tag is None:
                return kept + rest if (kept + rest).strip() else before + rest
            end = closing.get(tag[0].strip())
            before = "" if end else kept + rest[: tag.start()]
            kept = kept + rest[: tag.start()] if end else ""
            rest = rest[tag.end() :]


def _outside_fences(tags: Iterable[re.Match[str]], text: str) -> Iterator[re.Match[str]]:
    """The tags of a text, in order, that are in no fenced code."""
    blocks = fences(text)
    block = next(blocks, None)
    for tag in tags:
        while block is not None and block.end <= tag.start():
            block = next(blocks, None)
        if block is None or tag.start() < block.start:
            yield tag


@lru_cache(maxsize=16)
def _tags(pairs: tuple[tuple[str, str], ...]) -> re.Pattern[str]:
    """Opening tags that begin a line, closing tags that neither are quoted nor stand in the middle of a sentence."""
    opening = "|".join(re.escape(pair[0]) for pair in pairs)
    closing = "|".join(re.escape(pair[1]) for pair in pairs)
    stray = rf"(?<![\"'` \t])(?:{closing})|(?:{closing})(?![\"'`]|[ \t]+\S)"
    return re.compile(rf"(?m:^)[ \t]*(?:{opening})|{stray}")


def _unquoted(tags: str) -> str:
    """A pattern for tags that are not spoken of, with a quote on either side."""
    return rf"(?:(?<![\"'`])(?:{tags})|(?:{tags})(?![\"'`]))"


AUTO = Thinking.of("auto")
