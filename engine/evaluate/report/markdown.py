"""The report as Markdown: scores, verdicts and what is missing, for a pull request or a notebook."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from engine.evaluate.report.stages import Entry, Stage, asked_ks, entries, hat_ks
from engine.sandbox import VERDICTS

_MEANS_SOMETHING = re.compile(
    r"[\\`*~$<>\[\]|&#@]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # within a word it is a letter
    r"|:(?=//)|(?<=\bwww)\.",
    re.IGNORECASE,
)
_LINKS = "@#:."
"""GitHub looks for names, numbers and addresses in what is shown, where an entity is the character it stands for."""
_APART = "&#8203;"
"""A space without width."""


def write_markdown(stages: Sequence[Stage], out: Path, *, title: str = "Temper report") -> None:
    """Write the figures of some runs as Markdown tables."""
    models = entries(stages)
    parts = [f"# {plain(title)}", *score_table(models)]
    parts += [
        f"{plain(model.label)}: {plain('; '.join(model.judged.missing))}."
        for model in models
        if model.judged.missing
    ]
    if models:
        parts += ["## How programs ended", *_verdicts(models)]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n\n".join(parts) + "\n", encoding="utf-8", errors="replace")


def score_table(models: Sequence[Entry]) -> list[str]:
    """pass@k of each model with its 95 % interval: a sentence and a table."""
    if not models:
        return ["No evaluation has finished yet."]
    ks = asked_ks(models)
    hats = hat_ks(models)
    head = ["model", "benchmark", "tasks", *(f"pass@{k}" for k in ks), *(f"pass^{k}" for k in hats)]
    rows = [
        [
            model.label,
            model.judged.summary["benchmark"],
            str(model.judged.summary["tasks"]),
            *(_estimate(model.pass_at(k)) for k in ks),
            *(_estimate(model.pass_hat(k)) for k in hats),
        ]
        for model in models
    ]
    also = " pass^k: all of k samples pass." if hats else ""
    return [
        f"Unbiased pass@k by execution; in brackets the 95 % interval over tasks.{also}",
        table(head, rows),
    ]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of plain texts."""
    lines = [head, ["---"] * len(head), *([plain(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plain(text: str) -> str:
    """Text on one line that Markdown and HTML take as text, and in which GitHub finds nobody and nothing to link."""
    return _MEANS_SOMETHING.sub(_entity, " ".join(str(text).split()))


def _entity(found: re.Match[str]) -> str:
    return f"&#{ord(found.group())};" + (_APART if found.group() in _LINKS else "")


def _estimate(found: dict[str, Any]) -> str:
    if not found:
        return "undefined"
    return f"{found['value']:.1%} ({found['low']:.1%} to {found['high']:.1%})"


def _verdicts(models: Sequence[Entry]) -> list[str]:
    counts = [model.judged.summary["verdicts"] for model in models]
    seen = [name for name in VERDICTS if any(part.get(name) for part in counts)]
    rows = [[name, *(f"{part.get(name, 0):,}" for part in counts)] for name in seen]
    return [table(["verdict", *(plain(model.label) for model in models)], rows)]
