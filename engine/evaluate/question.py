"""How a task is put to a model: a text to go on with, sentinels around a hole, or a question in a chat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from engine.config import Evaluate, Run
from engine.data import infill_prompt
from engine.errors import WishError
from engine.evaluate.benchmarks import find
from engine.evaluate.shots import Shot
from engine.evaluate.task import Ask
from engine.generate.thinking import PAIRS

Turn = tuple[str, str]
"""Who speaks in a chat, and what."""

QUESTION = """Complete the following {language} code. Answer with the whole code in one fenced block.

{fence}{language}
{prompt}
{fence}
"""


def questions(run: Run, tokenizer: Any, shots: Sequence[Shot] = ()) -> tuple[Ask, bool]:
    """How a task is put to a model whose tokenizer is here, and whether that is as a chat.

    Raises:
        WishError: the benchmark, or the tokenizer's template, has no place for something that is wished for.
    """
    wish = run.evaluate
    if wish.benchmark == "infilling":
        if wish.chat == "yes":
            raise WishError(
                "evaluate.chat is yes and infilling is asked in sentinels", "set evaluate.chat to no"
            )
        return lambda task: infill_prompt(tokenizer, task.prompt, task.suffix), False
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if wish.chat == "no" or (wish.chat == "auto" and not has_template):
        for name, said in (("system", wish.system is not None), ("thinking", wish.thinking != "auto")):
            if said:
                raise WishError(
                    f"evaluate.{name} is set and the tokenizer has no chat template",
                    f"remove evaluate.{name}",
                )
        return continuation(wish, shots), False
    if not has_template:
        raise WishError(
            "evaluate.chat is yes and the tokenizer has no chat template", "set evaluate.chat to no"
        )
    if wish.prefix:
        raise WishError(
            "evaluate.prefix is set and the model is asked in chat, which its tokenizer has a template for",
            "set evaluate.chat to no, or remove evaluate.prefix",
        )
    _demand_tags_of_text(wish, tokenizer)
    before, question = opening(wish, shots), bare(wish)
    return lambda task: (_rendered(tokenizer, wish, [*before, ("user", question(task)[0])]), ()), True


def continuation(wish: Evaluate, shots: Sequence[Shot]) -> Ask:
    """A text to go on with: the prefix, the examples as the programs they are, and the task's prompt."""
    before = wish.prefix + "".join(f"{shot.code}\n\n" for shot in shots)
    benchmark = find(str(wish.benchmark))
    return lambda task: (before + benchmark.prompt(task), task.stop)


def opening(wish: Evaluate, shots: Sequence[Shot]) -> tuple[Turn, ...]:
    """What a chat begins with, before the task: the system turn, and the examples as questions answered."""
    turns: list[Turn] = [] if wish.system is None else [("system", wish.system)]
    for shot in shots:
        turns.append(("user", _question(shot.language, shot.prompt)))
        turns.append(("assistant", f"```{shot.language}\n{shot.code}```"))
    return tuple(turns)


def bare(wish: Evaluate) -> Ask:
    """A chat's question without the chat around it, which a server adds."""
    benchmark = find(str(wish.benchmark))
    return lambda task: (task.question or _question(task.language, benchmark.prompt(task)), ())


def _question(language: str, prompt: str) -> str:
    fence = "```" if "```" not in prompt else "`````"  # some problems show their examples in fences
    return QUESTION.format(language=language, prompt=prompt.rstrip(), fence=fence)


def _rendered(tokenizer: Any, wish: Evaluate, turns: Sequence[Turn]) -> str:
    messages = [{"role": role, "content": content} for role, content in turns]
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        raise WishError(
            f"the chat template refuses the question ({error})",
            "remove evaluate.system or evaluate.shots: not every template has a place for them",
        ) from None
    # Some templates drop what they have no place for, which nobody would notice.
    lost = next((role for role, content in turns if content.strip() not in text), None)
    if lost is not None:
        raise WishError(
            f"the chat template leaves out what the {lost} says",
            "remove evaluate.system or evaluate.shots, or put a place for them into the template",
        )
    return text


def _demand_tags_of_text(wish: Evaluate, tokenizer: Any) -> None:
    """Decoding leaves special tokens out, all but the known tags: thinking between others could not be told."""
    known = {tag for pair in PAIRS for tag in pair}
    own = wish.thinking if isinstance(wish.thinking, tuple) else ()
    special = [tag for tag in own if tag in tokenizer.all_special_tokens and tag not in known]
    if special:
        raise WishError(
            f"evaluate.thinking names {', '.join(special)}, which the tokenizer takes for special and leaves out",
            "let a server tell thinking apart (`vllm serve --reasoning-parser`), or set evaluate.thinking to auto",
        )
