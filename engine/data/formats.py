"""What a row means: chat messages, prompt and completion, instruction, plain text or code."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.config import Source
from engine.data.sources import Row
from engine.errors import WishError

_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant"}


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation, rendered by the tokenizer's chat template; its assistant turns are trained."""

    id: str
    where: str
    messages: tuple[dict[str, Any], ...]

    @property
    def text(self) -> str:
        """All that is said, for comparison with benchmark texts."""
        return "\n".join(message["content"] or "" for message in self.messages)


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and what must follow it; the completion and the end of text are trained."""

    id: str
    where: str
    prompt: str
    completion: str

    @property
    def text(self) -> str:
        """Prompt and completion, for comparison with benchmark texts."""
        return self.prompt + self.completion


@dataclass(frozen=True, slots=True)
class Document:
    """A text trained as a whole; code may be cut for fill-in-the-middle."""

    id: str
    where: str
    text: str
    code: bool


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text and the class of it, by name or number."""

    id: str
    where: str
    text: str
    label: str | int


@dataclass(frozen=True, slots=True)
class Marked:
    """A text and the classes of parts of it: (first character, one past the last, name or number)."""

    id: str
    where: str
    text: str
    spans: tuple[tuple[int, int, str | int], ...]


Sample = Chat | Pair | Document | Labelled | Marked


@dataclass(frozen=True, slots=True)
class Format:
    """A row format: the columns it needs, how a row becomes a sample, and the head that learns from it."""

    needs: tuple[str, ...]
    read: Callable[[Row, dict[str, Any], bool], Sample]
    head: str = "language"


def samples(
    rows: Sequence[Row], source: Source, *, has_template: bool, head: str = "language"
) -> tuple[str, list[Sample]]:
    """The format's name and the samples of a source's rows.

    Args:
        has_template: whether the tokenizer has a chat template; instruction rows use it when there is one.
        head: the model's, which only some formats are for.

    Raises:
        WishError: no format fits the first row, or a row lacks a column or holds the wrong type.
    """
    name = named(rows[0], source, head)
    return name, [sample(row, source, name, has_template=has_template) for row in rows]


def named(first: Row, source: Source, head: str = "language") -> str:
    """The name of a source's format: as it is wished, or as its first row looks.

    Raises:
        WishError: the format is not for the model's head.
    """
    name = detect(first, source, head) if source.format == "auto" else source.format
    if FORMATS[name].head != head:
        fitting = ", ".join(each for each, candidate in FORMATS.items() if candidate.head == head)
        raise WishError(
            f"{source.path} has format {name!r} and model.head is {head}",
            f"give rows of format {fitting}, or another head",
        )
    return name


def sample(row: Row, source: Source, name: str, *, has_template: bool) -> Sample:
    """What a row is in the format `name`."""
    chosen = FORMATS[name]
    return chosen.read(row, _columns(row, chosen, name, source), has_template)


def detect(row: Row, source: Source, head: str = "language") -> str:
    """The format whose columns the first row has; the order of FORMATS decides where several fit."""
    candidates = {name: candidate for name, candidate in FORMATS.items() if candidate.head == head}
    for there in ({**row.fields, **source.fields}, _renamed(row, source)):
        for name, candidate in candidates.items():
            if all(column in there for column in candidate.needs):
                return name
    wanted = "; ".join(f"{name}: {', '.join(candidate.needs)}" for name, candidate in candidates.items())
    raise WishError(
        f"{row.where} fits no format by its columns {_names(row)}",
        f"rename columns by `fields:` so that they fit one of: {wanted}",
    )


def _renamed(row: Row, source: Source) -> dict[str, Any]:
    """The row under the format's column names, aliases of the field included."""
    there = dict(row.fields)
    for ours, alias in _ALIASES.items():
        if alias in there and ours not in there:
            there[ours] = there[alias]
    for ours, theirs in source.fields.items():
        if theirs in row.fields:
            there[ours] = row.fields[theirs]
    return there


def _columns(row: Row, chosen: Format, name: str, source: Source) -> dict[str, Any]:
    there = _renamed(row, source)
    for column in chosen.needs:
        if column not in there:
            asked = source.fields.get(column, column)
            raise WishError(
                f"{row.where} has no column {asked!r}, which the format {name!r} needs; it has {_names(row)}",
                f"add it, or rename a column by `fields: {{{column}: YOUR_COLUMN}}`",
            )
    return there


def _names(row: Row) -> str:
    return ", ".join(sorted(map(repr, row.fields))) or "(none)"


def _string(row: Row, columns: dict[str, Any], name: str) -> str:
    value = columns[name]
    if not isinstance(value, str):
        raise WishError(
            f"{row.where}: column {name!r} holds a {type(value).__name__}, not text: {str(value)[:60]!r}",
            "write it as a string, or point `fields:` at another column",
        )
    return _whole_characters(row, value)


def _whole_characters(row: Row, text: str) -> str:
    r"""The text, if it can be written as UTF-8: JSON lets half a character through as a lone `\ud83d`."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise WishError(
            f"{row.where} holds half a character ({text[error.start]!r}) at position {error.start}",
            "mend the row; it was cut in the middle of a surrogate pair",
        ) from error
    return text


def _messages(row: Row, columns: dict[str, Any], has_template: bool) -> Sample:
    turns = columns["messages"]
    if isinstance(turns, str):
        # CSV and some Parquet files carry the list as a JSON string.
        try:
            turns = json.loads(turns)
        except json.JSONDecodeError as error:
            raise WishError(
                f"{row.where}: `messages` is not a list of turns", "write it as a list"
            ) from error
    if not isinstance(turns, list | tuple) or not turns:
        raise WishError(
            f"{row.where}: `messages` holds {str(turns)[:60]!r}", "give a list with at least one turn"
        )
    return Chat(row.id, row.where, tuple(_turn(row, turn) for turn in turns))


def _turn(row: Row, turn: Any) -> dict[str, Any]:
    """One turn as {role, content, ...}; the from/value spelling and lists of text parts are understood."""
    role = turn.get("role", turn.get("from")) if isinstance(turn, dict) else None
    content = turn.get("content", turn.get("value")) if isinstance(turn, dict) else None
    if isinstance(content, list) and all(isinstance(part, dict) and "text" in part for part in content):
        content = "".join(part["text"] for part in content)
    calls = turn.get("tool_calls") if isinstance(turn, dict) else None
    if not isinstance(role, str) or not (isinstance(content, str) or (content is None and calls)):
        raise WishError(
            f"{row.where}: a turn of `messages` lacks a text role or content: {str(turn)[:80]!r}",
            "write each turn as {role: user, content: ...}",
        )
    if content is not None:
        _whole_characters(row, content)
    rest = {name: value for name, value in turn.items() if name not in ("role", "from", "content", "value")}
    return {
        "role": _ROLES.get(role, role),
        "content": content,
        **{k: v for k, v in rest.items() if v is not None},
    }


def _completion(row: Row, columns: dict[str, Any], has_template: bool) -> Sample:
    return Pair(row.id, row.where, _string(row, columns, "prompt"), _string(row, columns, "completion"))


def _instruction(row: Row, columns: dict[str, Any], has_template: bool) -> Sample:
    """A chat turn where the tokenizer has a template, the Alpaca layout where it has none."""
    ask, answer = _string(row, columns, "instruction"), _string(row, columns, "output")
    extra = _string(row, columns, "input") if columns.get("input") else ""
    if has_template:
        question = f"{ask}\n\n{extra}" if extra else ask
        turns = ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
        return Chat(row.id, row.where, turns)
    given = f"### Input:\n{extra}\n\n" if extra else ""
    return Pair(row.id, row.where, f"### Instruction:\n{ask}\n\n{given}### Response:\n", answer)


def _text(row: Row, columns: dict[str, Any], has_template: bool) -> Sample:
    return Document(row.id, row.where, _string(row, columns, "text"), code=False)


def _code(row: Row, columns: dict[str, Any], has_template: bool) -> Sample:
    return Document(row.id, row.where, _string(row, columns, "code"), code=True)


def _labelled(row: Row, columns: dict[str, Any], has_template: bool) -> Sample:
    return Labelled(row.id, row.where, _string(row, columns, "text"), _label(row, columns["label"]))


def _label(row: Row, value: Any) -> str | int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise WishError(
            f"{row.where}: a label is {str(value)[:60]!r}", "write the name of a class, or its number from 0"
        )
    return value


def _spans(row: Row, columns: dict[str, Any], has_template: bool) -> Sample:
    text, spans = _string(row, columns, "text"), columns["spans"]
    found = []
    for span in spans if isinstance(spans, list | tuple) else [spans]:
        parts = [span.get(key) for key in ("start", "end", "label")] if isinstance(span, dict) else span
        if (
            not isinstance(parts, list | tuple)
            or len(parts) != 3
            or not all(isinstance(at, int) for at in parts[:2])
            or not 0 <= parts[0] < parts[1] <= len(text)
        ):
            raise WishError(
                f"{row.where}: a span is {str(span)[:60]!r}, of a text of {len(text)} characters",
                "write each as {start: 0, end: 5, label: NAME}, end one past the last character",
            )
        found.append((parts[0], parts[1], _label(row, parts[2])))
    found.sort()
    for one, other in zip(found, found[1:], strict=False):
        if other[0] < one[1]:
            raise WishError(
                f"{row.where}: spans {one[:2]} and {other[:2]} share characters",
                "give each character one class",
            )
    return Marked(row.id, row.where, text, tuple(found))


FORMATS: dict[str, Format] = {
    "messages": Format(("messages",), _messages),
    "completion": Format(("prompt", "completion"), _completion),
    "instruction": Format(("instruction", "output"), _instruction),
    "code": Format(("code",), _code),
    "text": Format(("text",), _text),
    "labelled": Format(("text", "label"), _labelled, "sequence"),
    "spans": Format(("text", "spans"), _spans, "token"),
}

# Spellings common on the hub; a column of the format's own name wins.
_ALIASES = {"messages": "conversations", "code": "content"}
