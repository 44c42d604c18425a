"""Where the assistant's turns stand in a rendered conversation, for any chat template.

A turn begins where generation would: right after the generation prompt. Templates trim, reorder and drop what
they are given, so positions are found by rendering twice: once with the real turns and once with a marker in
place of each assistant turn. Where the two do not line up (tool calls, a template that looks at the content),
every prefix of the conversation is rendered instead. Where that does not line up either, the run stops: a
guessed mask is worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from engine.data.formats import Chat
from engine.errors import WishError

# Private-use characters: no template treats them as space, and no data holds them in this form.
_MARKER = "\ue0f0{}\ue0f1"
_MARKED = re.compile("\ue0f0(\\d+)\ue0f1")

Messages = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Turn:
    """Characters [start, end) of an assistant turn: what the model must write after the generation prompt.

    The end-of-turn token is [close, end).
    """

    start: int
    close: int
    end: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as text, with its assistant turns."""

    text: str
    turns: tuple[Turn, ...]


class Template:
    """A tokenizer's chat template, able to say which characters the assistant wrote."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        specials = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        specials |= set(tokenizer.all_special_tokens)
        self._generation_prompt = self._find_generation_prompt()
        # A token that opens a turn is special too, but never closes one.
        closers = sorted(
            (s for s in specials if s and s not in self._generation_prompt), key=len, reverse=True
        )
        self._closer = re.compile("|".join(map(re.escape, closers)) or r"(?!)")

    def render(self, chat: Chat) -> Rendered:
        """Render a conversation and find its assistant turns.

        Raises:
            WishError: the template refuses the roles, does not close its turns, or hides where they are.
        """
        try:
            text = self._apply(chat.messages)
            turns = self._turns(text, chat)
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            roles = ", ".join(message["role"] for message in chat.messages)
            raise WishError(
                f"{chat.where}: the chat template refuses the conversation ({error}); its roles are {roles}",
                "mend the row, or give another template as `data.chat_template`",
            ) from error
        return Rendered(text, turns)

    def _turns(self, text: str, chat: Chat) -> tuple[Turn, ...]:
        if all(message["role"] != "assistant" for message in chat.messages):
            return ()
        # Without a generation prompt only the text rendered so far tells where the model would begin to write.
        ways = (self._by_markers, self._by_prefixes)
        for way in ways if self._generation_prompt else reversed(ways):
            if turns := way(text, chat):
                return turns
        raise WishError(
            f"{chat.where}: the chat template renders earlier turns differently once later ones follow, so what the "
            "assistant wrote cannot be told apart",
            "give a template that keeps every turn as `data.chat_template`, or one answer a row",
        )

    def _apply(self, messages: Messages, *, generate: bool = False) -> str:
        return self._tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=generate
        )

    def _find_generation_prompt(self) -> str:
        """What the template adds to make the assistant speak; empty where it adds nothing."""
        ask = [{"role": "user", "content": "x"}]
        try:
            plain, asked = self._apply(ask), self._apply(ask, generate=True)
        except (jinja2.TemplateError, TypeError, ValueError):
            return ""
        return asked[len(plain) :] if asked.startswith(plain) else ""

    def _by_markers(self, text: str, chat: Chat) -> tuple[Turn, ...]:
        """Turns by comparison with a rendering that has markers in their place; () if they do not line up."""
        speakers = [i for i, message in enumerate(chat.messages) if message["role"] == "assistant"]
        if any(chat.messages[i].get("tool_calls") or not chat.messages[i]["content"] for i in speakers):
            return ()
        marked = list(chat.messages)
        for i in speakers:
            marked[i] = {**marked[i], "content": _MARKER.format(i)}
        pieces = _MARKED.split(self._apply(marked))
        literals, numbers = pieces[::2], [int(number) for number in pieces[1::2]]
        if numbers != speakers or not text.startswith(literals[0]):
            return ()
        turns, at, opened = [], len(literals[0]), 0
        for number, after in zip(numbers, literals[1:], strict=True):
            said = _as_rendered(text, at, chat.messages[number]["content"], after)
            if said is None:
                return ()
            prompt = text.rfind(self._generation_prompt, opened, at) if self._generation_prompt else -1
            start = prompt + len(self._generation_prompt) if prompt >= 0 else at
            at += len(said)
            turns.append(self._closed(text, start, at, at + len(after), chat))
            opened, at = at, at + len(after)
        return tuple(turns) if at == len(text) else ()

    def _by_prefixes(self, text: str, chat: Chat) -> tuple[Turn, ...]:
        """Turns by rendering the conversation up to each; () where later turns change how earlier ones look."""
        turns = []
        for i, message in enumerate(chat.messages):
            if message["role"] != "assistant":
                continue
            asked = self._apply(chat.messages[:i], generate=True)
            answered = self._apply(chat.messages[: i + 1]).rstrip()
            if not answered.startswith(asked) or not text.startswith(answered):
                return ()
            closers = [found.start() for found in self._closer.finditer(text, len(asked), len(answered))]
            close = (
                closers[-1] if closers and self._closer.fullmatch(answered, closers[-1]) else len(answered)
            )
            turns.append(self._closed(text, len(asked), close, len(answered), chat))
        return tuple(turns)

    def _closed(self, text: str, start: int, content_end: int, limit: int, chat: Chat) -> Turn:
        """The turn with its end-of-turn token, which must follow the content at once (spaces aside)."""
        found = self._closer.search(text, content_end, limit)
        if found is None or text[content_end : found.start()].strip():
            raise WishError(
                f"{chat.where}: the chat template ends an assistant turn with "
                f"{text[content_end:limit][:40]!r}, without an end-of-turn token: the model would never stop",
                "write one (e.g. {{ eos_token }}) after assistant turns in `data.chat_template`",
            )
        return Turn(start, found.start(), found.end())


def end_of_turn(tokenizer: Any) -> int | None:
    """The token an assistant turn ends with: where generation from a chat prompt must stop, beside eos.

    None where the tokenizer has no chat template, or one that does not close a plain turn.
    """
    if not tokenizer.chat_template:
        return None
    asked = ({"role": "user", "content": "x"}, {"role": "assistant", "content": "x"})
    try:
        rendered = Template(tokenizer).render(Chat("probe", "the chat template", asked))
    except WishError:
        return None
    last = rendered.turns[-1]
    return int(tokenizer.convert_tokens_to_ids(rendered.text[last.close : last.end]))


def _as_rendered(text: str, at: int, content: str, after: str) -> str | None:
    """What the template made of `content` at `at`, given the literal text that follows; None if unclear."""
    for candidate in (content, content.strip(), content.rstrip(), content.lstrip()):
        if text.startswith(candidate + after, at):
            return candidate
    end = text.find(after, at) if after else len(text)
    kept = text[at:end] if end >= 0 else ""
    return kept if kept and kept in content else None
