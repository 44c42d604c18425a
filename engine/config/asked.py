"""Rules about how tasks are put to a model: what only a question has, and what only a text to continue has."""

from __future__ import annotations

from collections.abc import Iterator

from engine.config.finding import Finding
from engine.config.run import Run

WITH_EXAMPLES = ("basics", "mbpp")
"""Benchmarks that bring examples of their own."""


def shots_have_a_source(run: Run, ranks: int) -> Iterator[Finding]:
    """Examples come from the benchmark or from a file, and stand before a prompt to continue or a question."""
    wish = run.evaluate
    if wish.shots_data and not wish.shots:
        yield Finding(
            f"evaluate.shots_data is {wish.shots_data} and evaluate.shots is 0",
            "set evaluate.shots to the number of examples wanted, or remove shots_data",
        )
    if not wish.shots or not wish.benchmark:
        return
    if wish.benchmark == "infilling":
        yield Finding(
            f"evaluate.shots is {wish.shots} and infilling is asked in sentinels", "set evaluate.shots to 0"
        )
    elif not wish.shots_data and wish.benchmark not in WITH_EXAMPLES:
        yield Finding(
            f"evaluate.shots is {wish.shots} and {wish.benchmark} has no examples of its own",
            "name a JSONL of prompt and completion in evaluate.shots_data, or set shots to 0",
        )


def prefix_is_continued(run: Run, ranks: int) -> Iterator[Finding]:
    """A prefix is the beginning of a text; a question and sentinels have none."""
    wish = run.evaluate
    if not wish.prefix:
        return
    if wish.benchmark == "infilling":
        yield Finding("evaluate.prefix is set and infilling is asked in sentinels", "remove evaluate.prefix")
    elif asks(run):
        yield Finding(
            "evaluate.prefix is set and the model is asked in chat",
            "remove evaluate.prefix (evaluate.system is a chat's), or set evaluate.chat to no",
        )


def only_a_chat_has_turns(run: Run, ranks: int) -> Iterator[Finding]:
    """A system turn, and thinking before an answer, are a chat's."""
    wish = run.evaluate
    infills = wish.benchmark == "infilling"
    continues = wish.server.api == "completions" if wish.server.url else wish.chat == "no"
    for name, said in (("system", wish.system is not None), ("thinking", wish.thinking != "auto")):
        if said and infills:
            yield Finding(
                f"evaluate.{name} is set and infilling is asked in sentinels", f"remove evaluate.{name}"
            )
        elif said and continues:
            yield Finding(
                f"evaluate.{name} is set and the model is not asked in chat",
                f"set {'evaluate.server.api to chat' if wish.server.url else 'evaluate.chat to yes'}, "
                f"or remove evaluate.{name}",
            )


def asks(run: Run) -> bool:
    """Whether the model is sure to be asked in chat, as far as that is known without its tokenizer."""
    server = run.evaluate.server
    return server.api == "chat" if server.url else run.evaluate.chat == "yes"
