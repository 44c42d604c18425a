"""Prompts to tokens and new tokens to text, without losing a space, an end or a stop on the way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from engine.errors import WishError
from engine.generate.thinking import PAIRS

# How vocabularies write white space: byte-level BPE, SentencePiece.
_SPELLINGS = {" ": (" ", "Ġ", "▁"), "\n": ("\n", "Ċ"), "\t": ("\t", "ĉ"), "\r": ("\r", "č")}
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
# Tokens of the prompt decoded along with the new ones; a few are enough to keep a leading space.
_CONTEXT = 4


class Codec:
    """A tokenizer as generation needs it.

    Args:
        tokenizer: any of transformers'.
        ends: token ids that end an answer.
    """

    def __init__(self, tokenizer: Any, ends: Iterable[int]) -> None:
        self._tokenizer = tokenizer
        self._ends = frozenset(ends)
        self._added: dict[str, int] = tokenizer.get_added_vocab()
        special = set(tokenizer.all_special_tokens)
        # Decoding leaves out special tokens; these are looked for in the text.
        self._tags = {
            self._added[tag]: tag for pair in PAIRS for tag in pair if tag in special & set(self._added)
        }
        self.encode = lru_cache(maxsize=None)(self._encode)
        self.stops = lru_cache(maxsize=None)(self._stops)

    def _encode(self, prompt: str) -> tuple[int, ...]:
        """Token ids of a prompt: one BOS where the tokenizer has it so, and no end after it.

        Raises:
            WishError: the prompt has no token at all.
        """
        tokenizer = self._tokenizer
        # A rendered chat begins with its BOS already.
        has_bos = bool(tokenizer.bos_token) and prompt.startswith(tokenizer.bos_token)
        ids = tuple(tokenizer(prompt, add_special_tokens=not has_bos)["input_ids"])
        if ids and ids[-1] == tokenizer.eos_token_id and not prompt.endswith(tokenizer.eos_token):
            ids = ids[:-1]
        if not ids:
            start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
            if start is None:
                raise WishError(
                    f"prompt {prompt!r} has no token and the tokenizer has neither BOS nor EOS to start from",
                    "give every task a prompt",
                )
            ids = (start,)
        return ids

    def _stops(self, stops: tuple[str, ...]) -> Stops:
        """The stops of a request, ready to be looked for."""
        ends = self._ends | {self._added[stop] for stop in stops if stop in self._added}
        return Stops(self._tokenizer, ends, tuple(stop for stop in stops if stop))

    def decode(self, prompt: Sequence[int], new: Sequence[int]) -> str:
        """Text of the new tokens as it follows the prompt.

        SentencePiece-style decoders drop the space that a text begins with. So the new tokens are decoded
        after some of the prompt's, and that part is cut off again.
        """
        for context in (list(prompt[-_CONTEXT:]), list(prompt)):
            before, whole = self._text(context), self._text([*context, *new])
            if whole.startswith(before):
                return whole[len(before) :]
        return self._text(list(new))

    def _text(self, ids: list[int]) -> str:
        text, start = "", 0
        for place in (at for at, id in enumerate(ids) if id in self._tags):
            text += _decode(self._tokenizer, ids[start:place]) + self._tags[ids[place]]
            start = place + 1
        return text + _decode(self._tokenizer, ids[start:])


class Stops:
    """When an answer is over: at a token, or at a text.

    Looking for a text means decoding, which costs as much as a small model's step. So only tokens that can
    complete a stop are followed by a look, and the look covers the last few tokens.
    """

    def __init__(self, tokenizer: Any, ends: frozenset[int], texts: tuple[str, ...]) -> None:
        self.ends = ends
        self.texts = texts
        self._tokenizer = tokenizer
        self._window = max((len(text.encode()) for text in texts), default=0) + 2
        vocabulary: dict[str, int] = tokenizer.get_vocab() if texts else {}
        self._bytes = frozenset(id for piece, id in vocabulary.items() if _BYTE.fullmatch(piece))
        self._completing = _completing(vocabulary, texts, self._bytes)

    def over(self, new: list[int]) -> bool:
        """Whether the last of the new tokens ends the answer."""
        last = new[-1]
        if last in self.ends:
            return True
        if self._completing is not None and last not in self._completing:
            return False
        start = max(0, len(new) - self._window)
        # Byte pieces are decoded a whole run at a time: a run cut in its middle would be nothing but marks.
        while start > 0 and new[start] in self._bytes:
            start -= 1
        return self.find(_decode(self._tokenizer, new[start:])) is not None

    def find(self, text: str) -> int | None:
        """Where the earliest stop text begins."""
        found = [place for stop in self.texts if (place := text.find(stop)) >= 0]
        return min(found, default=None)


def _completing(
    vocabulary: dict[str, int], stops: tuple[str, ...], byte_pieces: frozenset[int]
) -> frozenset[int] | None:
    """Ids of tokens that may hold the last character of a stop; None: any may."""
    spellings: set[str] = set()
    for stop in stops:
        last = stop[-1]
        if not last.isascii():
            return None
        spellings.update(_SPELLINGS.get(last, (last,)))
    if not spellings:
        return frozenset()
    wanted = re.compile("|".join(re.escape(spelling) for spelling in spellings))
    return byte_pieces | {id for piece, id in vocabulary.items() if wanted.search(piece)}


def _decode(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text
