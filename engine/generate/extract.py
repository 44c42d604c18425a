"""From what a model said to a completion of the prompt: a pure function, so old answers can be replayed.

`prompt + extract(text, task)` is the program. Nothing here repairs code: it only finds it.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.generate.fences import Fenced, fences
from engine.generate.thinking import AUTO, Thinking

EXTRACT_VERSION = 3
"""Raised whenever the same text may give another completion; written into every result."""

BEGINNINGS = 200
"""How many beginnings of an answer without fences are tried; prose behind code takes one or two."""
_CODE_LINE = re.compile(r"^(?:import|from|def|async def|class|@)[ \t]*\S")
_SCRIPT_LINE = re.compile(
    r"^(?:import |from \S+ import |def |class |@|(?:for|while|if|with) .+:$|try:|print\(|\w+(?:, ?\w+)* ?= ?\S)"
)
"""A line that a script may begin with, where nothing fences it."""
_READS = re.compile(r"\binput\b|\bstdin\b|\bopen\(0|\bfileinput\b")
_PYTHON_TAGS = ("", "python", "python3", "py", "py3")


class Asked(Protocol):
    """The part of a task that extraction looks at."""

    @property
    def prompt(self) -> str: ...
    @property
    def entry_point(self) -> str: ...
    @property
    def stop(self) -> tuple[str, ...]: ...
    @property
    def suffix(self) -> str: ...
    @property
    def language(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a chat answer."""

    tag: str
    code: str


def extract(
    text: str, task: Asked, *, chat: bool = False, thinking: Thinking = AUTO, rendered: str = ""
) -> str:
    """Find the completion in a model's new text.

    Args:
        text: the new text only, never the prompt, as the tokenizer decoded it.
        task: gives the prompt, the name that must be defined, and the stops.
        chat: whether the model was asked through a chat template and answers in prose with fenced code.
        thinking: the rule by which a chat answer's thinking is dropped.
        rendered: what was put to the model, where its template may have opened the thinking.

    A task without an entry point asks for a script: all of a block is taken, or all of a continuation.

    Returns:
        Text to append to the prompt; empty where there is no code in the answer, or nothing but thinking.
    """
    text = _plain(text)
    if chat:
        text = thinking.answer(text, prompt=rendered) or ""
    if task.suffix:
        return text  # a middle may begin and end anywhere: only its end token closes it
    if task.language != "python":
        return _in_another_language(text, task, chat=chat)
    if chat or text.lstrip().startswith("```"):
        return _from_chat(text, task)
    if text.startswith(task.prompt):
        return cut(text[len(task.prompt) :], task.stop)
    again = _definition(text, task.entry_point) if task.entry_point else None
    if again and not _first_line(text).startswith((" ", "\t")):
        # Stops such as "\ndef" end a continuation; here they would end the answer before it has begun.
        return _beside(text[: again.end()] + cut(text[again.end() :], task.stop), task)
    return cut(text, task.stop)


def cut(text: str, stop: Sequence[str]) -> str:
    """The text before whichever stop comes first."""
    ends = [place for place in (text.find(word) for word in stop if word) if place >= 0]
    return text[: min(ends)] if ends else text


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a Markdown text, in order; one that is never closed runs to the end."""
    return [_block(fenced) for fenced in fences(text)]


def _block(fenced: Fenced) -> Block:
    # A fence inside a list item is indented, and so is its code; the indentation is Markdown's, not Python's.
    lines = fenced.code.split("\n")
    words = fenced.info.split()
    return Block(
        tag=words[0].lower() if words else "",
        code="\n".join(line.removeprefix(fenced.margin) for line in lines),
    )


def _plain(text: str) -> str:
    """Undo what transport adds: byte order marks, null bytes, foreign line ends are no part of a program."""
    return text.replace("\ufeff", "").replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")


def _from_chat(text: str, task: Asked) -> str:
    if not task.entry_point:
        return _script(text).removeprefix(task.prompt)
    code = _choose(blocks(text), task.entry_point)
    if code is None:
        code = _unfenced(text, task.entry_point)
    if code.startswith(task.prompt):
        return code[len(task.prompt) :]
    if not code.strip() or _defines(code, task.entry_point):
        return _beside(code, task) if code.strip() else ""
    return _as_body(code, task.prompt)


def _script(answer: str) -> str:
    """The last block that parses and reads its input: drafts come first, and shown input and output read nothing."""
    found = blocks(answer)
    tagged = [block.code for block in found if block.tag and block.tag in _PYTHON_TAGS]
    codes = tagged or [block.code for block in found if not block.tag] or [block.code for block in found]
    if not codes:
        return _from_first_line_of_code(answer, _SCRIPT_LINE)
    parsing = [code for code in codes if _parses(code)]
    reading = [code for code in parsing if _READS.search(code)]
    return (reading or parsing or [max(codes, key=len)])[-1]


def _in_another_language(text: str, task: Asked, *, chat: bool) -> str:
    """What goes on after the prompt: an answer that repeats the prompt's last line is taken from there on.

    The tests close what the prompt opened, so the answer ends where the benchmark's stops say.
    """
    if chat or text.lstrip().startswith("```"):
        found = blocks(text)
        text = max((block.code for block in found), key=len, default=text)
    signature = task.prompt.rstrip().rsplit("\n", 1)[-1].split()
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if signature and line.split() == signature:
            return cut("\n".join(lines[number + 1 :]), task.stop)
    return cut(text.removeprefix(task.prompt), task.stop)


def _choose(found: Sequence[Block], entry_point: str) -> str | None:
    """The last block that defines the entry point and parses: drafts come first, examples define nothing."""
    python = [block.code for block in found if block.tag in _PYTHON_TAGS] or [block.code for block in found]
    defining = [code for code in python if _defines(code, entry_point)]
    parsing = [code for code in defining if _parses(code)]
    for choice in (parsing, defining):
        if choice:
            return choice[-1]
    return max(python, key=len) if python else None


def _unfenced(answer: str, entry_point: str) -> str:
    """Code of an answer without fences that holds a function."""
    code = _from_first_line_of_code(answer, _CODE_LINE, entry_point)
    return code or (answer if answer.startswith((" ", "\t")) else "")


def _from_first_line_of_code(answer: str, first: re.Pattern[str], entry_point: str = "") -> str:
    """From the `first` line of code on, less the prose behind what parses; empty where there is no such line.

    What is left defines the entry point, where there is one to be defined; else nothing is taken away.
    """
    lines = answer.split("\n")
    start = next((number for number, line in enumerate(lines) if first.match(line)), None)
    if start is None:
        return ""
    lines = lines[start:]
    end = len(lines)
    for _ in range(BEGINNINGS):
        code = "\n".join(lines[:end]) + "\n"
        if entry_point and not _defines(code, entry_point):
            break
        wrong = _first_wrong_line(code)
        if wrong is None:
            return code
        # Whatever follows, no text that holds the wrong line parses: between it and the end nothing need be tried.
        end = min(end, wrong) - 1
        if end < 1:
            break
    return "\n".join(lines) + "\n"


def _first_wrong_line(code: str) -> int | None:
    """Number of the line at which a text stops being Python, from 1; None where it is."""
    try:
        _parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return getattr(error, "lineno", None) or code.count("\n")
    return None


def _defines(code: str, entry_point: str) -> bool:
    return (
        re.search(rf"^[ \t]*(?:async[ \t]+def|def|class)[ \t]+{re.escape(entry_point)}\b", code, re.M)
        is not None
    )


def _definition(text: str, entry_point: str) -> re.Match[str] | None:
    """Where a text defines the entry point at the left margin."""
    return re.search(rf"^(?:async[ \t]+def|def|class)[ \t]+{re.escape(entry_point)}\b", text, re.M)


def _first_line(text: str) -> str:
    return next((line for line in text.split("\n") if line.strip()), "")


def _beside(code: str, task: Asked) -> str:
    """Put a whole function after the prompt's unfinished one, which it then replaces.

    The prompt stays, since its imports and helpers may be needed.
    """
    code = textwrap.dedent(code).strip("\n") + "\n"
    if _parses(task.prompt):
        return "\n\n" + code
    return f"\n{_body_indent(task.prompt)}pass\n\n\n{code}"


def _as_body(code: str, prompt: str) -> str:
    """Indent an answer that gives only the function's body, as far as the prompt's body is."""
    body = textwrap.indent(textwrap.dedent(code).strip("\n"), _body_indent(prompt)) + "\n"
    return body if prompt.endswith("\n") else "\n" + body


def _body_indent(prompt: str) -> str:
    """Indentation of the body that the prompt leaves open."""
    lines = [line for line in prompt.split("\n") if line.strip()]
    if not lines:
        return ""
    indent = lines[-1][: len(lines[-1]) - len(lines[-1].lstrip())]
    if _parses(prompt):
        # The last statement is a docstring, whose last line may sit anywhere: the tree knows where it began.
        body = ast.parse(prompt).body
        if not body:
            return ""  # only comments
        node: ast.AST = body[-1]
        while isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            node = node.body[-1]
        return " " * getattr(node, "col_offset", len(indent))
    return indent + "    " if lines[-1].rstrip().endswith(":") else indent


def parsed(code: str) -> ast.Module | None:
    """The syntax tree; None for what is no Python, or is nested without end. A model's code warns nobody."""
    try:
        return _parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _parse(code: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(code)


def _parses(code: str) -> bool:
    return parsed(code) is not None
