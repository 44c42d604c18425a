"""Samples to tokens and the mask of trained ones, taken from rendered spans, never from token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.data.batch import Encoded
from engine.data.chat import Rendered, Template, Turn
from engine.data.classes import Classes
from engine.data.formats import Chat, Document, Labelled, Marked, Pair, Sample
from engine.errors import WishError


class Encoder:
    """Encodes samples with one tokenizer.

    Text and completions begin with what the tokenizer itself puts first (its BOS, if it uses one) and end
    with its eos, which is trained. A prompt is encoded on its own, as it is when the model is asked, and its
    completion as the continuation. A conversation is encoded as a whole, exactly as the tokenizer's own
    `apply_chat_template` does.
    """

    def __init__(self, tokenizer: Any, *, mask_prompt: bool, labels: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._classes = Classes(tokenizer, labels)
        self._mask_prompt = mask_prompt
        self._template = Template(tokenizer) if tokenizer.chat_template else None
        self._adds_space = str(tokenizer.convert_ids_to_tokens(self.ids(["a"])[0].tolist())[0]).startswith(
            "▁"
        )
        self.opening = self._find_opening()

    def ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of texts, int32, without anything added."""
        if not texts:
            return []
        found = self._tokenizer(
            list(texts),
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return [np.asarray(ids, dtype=np.int32) for ids in found["input_ids"]]

    def continuations(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of texts that follow others: without the space some tokenizers put before a text."""
        if not self._adds_space:
            return self.ids(texts)
        return [ids for ids, _ in self._continued_with_offsets(texts)]

    def encode(self, samples: Sequence[Sample]) -> list[Encoded]:
        """Encode samples, in their order.

        Raises:
            WishError: the tokenizer lacks what the samples need (chat template, eos), or the template cannot
            be masked.
        """
        kinds: dict[type, Any] = {Chat: self._chats, Pair: self._pairs, Document: self._documents}
        kinds |= {Labelled: self._classes.labelled, Marked: self._classes.marked}
        encoded: dict[int, Encoded] = {}
        for kind, encode in kinds.items():
            places = [place for place, sample in enumerate(samples) if isinstance(sample, kind)]
            if places:
                encoded.update(zip(places, encode([samples[place] for place in places]), strict=True))
        return [encoded[place] for place in range(len(samples))]

    def _chats(self, chats: Sequence[Chat]) -> list[Encoded]:
        if self._template is None:
            raise WishError(
                f"{chats[0].where} is a conversation, and the tokenizer has no chat template",
                "give one as `data.chat_template`, take the instruct model's tokenizer as `model.tokenizer`, "
                "or write the rows as prompt and completion",
            )
        rendered = [self._template.render(chat) for chat in chats]
        heads = [each.text[: each.turns[0].start] if each.turns else each.text for each in rendered]
        tails = [tail for each in rendered for tail in _tails(each)]
        tail_tokens = iter(self._continued_with_offsets(tails))
        encoded = []
        for chat, each, head in zip(chats, rendered, self.ids(heads), strict=True):
            parts, trained = [head], [np.zeros(len(head), dtype=bool)]
            for turn in each.turns:
                ids, offsets = next(tail_tokens)
                parts.append(ids)
                trained.append(self._turn_mask(chat, each, turn, offsets))
            encoded.append(self._chat(chat, np.concatenate(parts), np.concatenate(trained)))
        return encoded

    def _chat(self, chat: Chat, ids: np.ndarray, trained: np.ndarray) -> Encoded:
        if not self._mask_prompt:
            trained[:] = True
        elif not any(
            m["role"] == "assistant" and (m["content"] or m.get("tool_calls")) for m in chat.messages
        ):
            trained[:] = False
        return _first_untrained(chat.id, ids, trained)

    def _turn_mask(self, chat: Chat, rendered: Rendered, turn: Turn, offsets: np.ndarray) -> np.ndarray:
        """Which tokens of a text that begins with an assistant turn are trained: all up to its end-of-turn token."""
        starts, ends = offsets[:, 0] + turn.start, offsets[:, 1] + turn.start
        if not np.any((starts == turn.close) & (ends == turn.end)):
            raise WishError(
                f"{chat.where}: {rendered.text[turn.close : turn.end]!r} ends a turn, not as one token",
                "add it to the tokenizer as a special token, or mend `data.chat_template`",
            )
        return starts < turn.end

    def _pairs(self, pairs: Sequence[Pair]) -> list[Encoded]:
        eos = self._eos(pairs[0])
        prompts = self.ids([pair.prompt for pair in pairs])
        completions = self.continuations([pair.completion for pair in pairs])
        encoded = []
        for pair, prompt, completion in zip(pairs, prompts, completions, strict=True):
            ids = np.concatenate([self.opening, prompt, completion, eos])
            trained = np.full(len(ids), bool(pair.completion) or not self._mask_prompt)
            if self._mask_prompt:
                trained[: len(self.opening) + len(prompt)] = False
            encoded.append(_first_untrained(pair.id, ids, trained))
        return encoded

    def _documents(self, documents: Sequence[Document]) -> list[Encoded]:
        eos = self._eos(documents[0])
        bodies = self.ids([document.text for document in documents])
        encoded = []
        for document, body in zip(documents, bodies, strict=True):
            ids = np.concatenate([self.opening, body, eos])
            encoded.append(_first_untrained(document.id, ids, np.full(len(ids), bool(document.text))))
        return encoded

    def _eos(self, sample: Sample) -> np.ndarray:
        eos = self._tokenizer.eos_token_id
        if eos is None:
            raise WishError(
                f"{sample.where} must end with the end-of-text token, and the tokenizer has none",
                "set `eos_token` in its tokenizer_config.json",
            )
        return np.asarray([eos], dtype=np.int32)

    def _continued_with_offsets(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Token ids [n] of texts that follow others, and the characters [n, 2] each stands for."""
        if not texts:
            return []
        if not self._tokenizer.is_fast:
            raise WishError(
                f"{type(self._tokenizer).__name__} cannot say which characters a token stands for",
                "use a fast tokenizer (one with tokenizer.json), or write the rows as prompt and completion",
            )
        # A line break in front takes the space that such tokenizers add, and is then left out.
        before = "\n" if self._adds_space else ""
        found = self._tokenizer(
            [before + text for text in texts],
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        encoded = []
        for ids, offsets in zip(found["input_ids"], found["offset_mapping"], strict=True):
            places = np.asarray(offsets, dtype=np.int64).reshape(-1, 2) - len(before)
            kept = places[:, 1] > 0 if before else slice(None)
            encoded.append((np.asarray(ids, dtype=np.int32)[kept], places[kept]))
        return encoded

    def _find_opening(self) -> np.ndarray:
        """What the tokenizer puts before a text by itself, found by asking it."""
        plain = self._tokenizer("a", add_special_tokens=False)["input_ids"]
        whole = self._tokenizer("a")["input_ids"]
        before = whole[: whole.index(plain[0])] if plain and plain[0] in whole else []
        return np.asarray(before, dtype=np.int32)


def _tails(rendered: Rendered) -> list[str]:
    """The text from each assistant turn to the next."""
    borders = [turn.start for turn in rendered.turns] + [len(rendered.text)]
    return [rendered.text[start:end] for start, end in zip(borders, borders[1:], strict=False)]


def _first_untrained(sample_id: str, ids: np.ndarray, trained: np.ndarray) -> Encoded:
    """A sample's first token is no target: nothing stands before it."""
    trained[:1] = False
    return Encoded(sample_id, ids, trained)
