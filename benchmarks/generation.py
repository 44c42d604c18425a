"""Tokens a second of Temper's own generation, of transformers' `generate` and of its `generate_batch`.

Run: python benchmarks/generation.py [--write]. The embedded model in fp32, the same prompts for all three, each
round of all three in turn. --write puts the table in docs/results/generation.md too.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers
from executors.machine import ROOT, command, facts, prose
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from engine.evaluate.benchmarks import find
from engine.generate import Request, Sampling, generate

ROUNDS = 7
PROMPTS, BATCH, NEW = 64, 16, 48
GREEDY, SAMPLED = 0.0, 0.8

Answers = list[tuple[int, str]]
"""How many tokens were drawn for each prompt, the end token included, and the text they make."""
Way = Callable[[Any, Any, Sequence[str], float], Answers]


def ours(model: Any, tokenizer: Any, prompts: Sequence[str], temperature: float) -> Answers:
    """Temper's generation."""
    sampling = Sampling(temperature, max_new_tokens=NEW)
    wanted = [Request(str(number), 0, prompt, number, sampling) for number, prompt in enumerate(prompts)]
    answers = generate(model, tokenizer, wanted, batch=BATCH, device="cpu")
    found = {int(answer.task_id): (answer.tokens, answer.raw) for answer in answers}
    return [found[number] for number in range(len(prompts))]


def plain(model: Any, tokenizer: Any, prompts: Sequence[str], temperature: float) -> Answers:
    """`generate` on left-padded batches, longest prompts first, as one would write it by hand."""
    tokenizer.padding_side = "left"
    order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number]))
    found: dict[int, tuple[int, str]] = {}
    for first in range(0, len(order), BATCH):
        chosen = order[first : first + BATCH]
        inputs = tokenizer([prompts[number] for number in chosen], return_tensors="pt", padding=True)
        out = model.generate(**inputs, generation_config=settings(tokenizer, temperature))
        for number, row in zip(chosen, out[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
            end = row.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in row else len(row)
            found[number] = (end, tokenizer.decode(row[:end], skip_special_tokens=True))
    return [found[number] for number in range(len(prompts))]


def continuous(model: Any, tokenizer: Any, prompts: Sequence[str], temperature: float) -> Answers:
    """`generate_batch`: continuous batching over a paged cache."""
    ids = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    out = model.generate_batch(ids, generation_config=settings(tokenizer, temperature)).values()
    new = [list(answer.generated_tokens) for answer in out]
    return [(len(ids), tokenizer.decode(ids, skip_special_tokens=True)) for ids in new]


WAYS: dict[str, Way] = {
    "Temper": ours,
    "`generate`, padded batches": plain,
    "`generate_batch`": continuous,
}


def settings(tokenizer: Any, temperature: float) -> GenerationConfig:
    """The same wishes in transformers' words."""
    drawing = (
        {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    )
    return GenerationConfig(
        max_new_tokens=NEW,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **drawing,
    )


def rows(model: Any, tokenizer: Any, prompts: Sequence[str], temperature: float) -> list[str]:
    """Lines of the table: each way's median speed, its spread, and how many greedy answers equal `generate`'s."""
    speeds: dict[str, list[float]] = {name: [] for name in WAYS}
    costs: dict[str, list[float]] = {name: [] for name in WAYS}
    answers: dict[str, Answers] = {}
    for round_ in range(ROUNDS + 1):
        for name, way in WAYS.items():
            torch.manual_seed(round_)
            began, used = time.perf_counter(), time.process_time()
            answers[name] = way(model, tokenizer, prompts, temperature)
            wall, processor = time.perf_counter() - began, time.process_time() - used
            if round_:  # the first one warms up
                count = sum(tokens for tokens, _ in answers[name])
                speeds[name].append(count / wall)
                costs[name].append(count / processor)
    reference = answers["`generate`, padded batches"]
    lines = []
    for name, values in speeds.items():
        median = statistics.median(values)
        ratio = median / statistics.median(speeds["Temper"])
        spread = f"{min(values):,.0f} to {max(values):,.0f}"
        cost = statistics.median(costs[name])
        same = sum(one == other for one, other in zip(answers[name], reference, strict=True))
        shown = f"{same} of {len(prompts)}" if not temperature else "-"
        lines.append(f"| {name} | {median:,.0f} | {spread} | {ratio:.2f} | {cost:,.0f} | {shown} |")
    return lines


def main() -> None:
    """Print the table, and write it where asked."""
    folder = ROOT / "configs" / "tiny" / "base"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompts = [task.prompt for task in find("basics").load(None, limit=PROMPTS)]
    head = (
        "| | tokens/s, median | least to most | of Temper's | tokens per CPU second | answers equal to `generate`'s |\n"
        "|---|---|---|---|---|---|"
    )
    parts = [
        f"{name}:\n\n{head}\n" + "\n".join(rows(model, tokenizer, prompts, temperature))
        for name, temperature in (("Greedy", GREEDY), (f"Sampled at temperature {SAMPLED}", SAMPLED))
    ]
    about = prose(
        f"`{command()}`, {facts()}; transformers {transformers.__version__}, torch {torch.__version__}, load average "
        f"{os.getloadavg()[0]:.1f}. {ROUNDS} rounds of each in turn after one to warm up; {len(prompts)} prompts of "
        f"`basics`, at most {NEW} new tokens, batches of {BATCH}, the embedded model in fp32. What follows from it: "
        "decision 12."
    )
    text = f"""# Generation on a CPU, three ways

{about}

{(chr(10) * 2).join(parts)}
"""
    print(text)
    if "--write" in sys.argv:
        (ROOT / "docs" / "results" / "generation.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
