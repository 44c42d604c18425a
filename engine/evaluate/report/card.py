"""The model card: what a run's own files say of its model, in the form the Hub reads; nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from engine import protocol
from engine.errors import WishError
from engine.evaluate.report.markdown import plain, score_table, table
from engine.evaluate.report.stages import Entry, Stage, entries, gather

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
TOLD = ("strategy", "world_size", "precision", "steps", "parameters", "trained_parameters", "attention")
WISHED = ("global_batch", "learning_rate", "optimizer", "schedule", "epochs")


def card(run: Path, *, license_name: str | None = None) -> str:
    """A run's model card.

    Args:
        run: the run folder.
        license_name: as the Hub writes it, where the user knows it; the run does not.

    Raises:
        WishError: the run trained nothing yet, or its result was not judged.
    """
    if not any((run / name).is_dir() for name in (protocol.MODEL, protocol.ADAPTER)):
        raise WishError(
            f"{run} holds neither {protocol.MODEL}/ nor {protocol.ADAPTER}/, so there is no model to describe",
            "run `temper train` to its end first",
        )
    stage = gather([run])[0]
    models = entries([stage])
    own = [model for model in models if not model.judged.of_start]
    if not own:
        raise WishError(f"{run} holds no finished evaluation of its result", "run `temper evaluate` first")
    head = yaml.safe_dump(_head(stage, own, license_name), sort_keys=False, allow_unicode=True)
    return "\n\n".join([f"---\n{head}---", f"# {plain(stage.name)}", *_body(stage, models)]) + "\n"


def _head(stage: Stage, own: list[Entry], license_name: str | None) -> dict[str, Any]:
    """What the Hub reads; a key whose value the run does not know is left out."""
    base = str(stage.run.get("model", {}).get("path", ""))
    adapted = (stage.folder / protocol.ADAPTER).is_dir()
    kind = stage.facts.get("adapter")
    head: dict[str, Any] = {}
    if HUB_ID.fullmatch(base) and not Path(base).exists():
        head["base_model"] = base
    head["library_name"] = "peft" if adapted else "transformers"
    head["tags"] = ["code", "temper", *([kind] if kind and kind != "full" else [])]
    if license_name:
        head["license"] = license_name
    head["model-index"] = [{"name": stage.name, "results": [_result(model) for model in own]}]
    return head


def _result(model: Entry) -> dict[str, Any]:
    benchmark = model.judged.summary["benchmark"]
    limit = model.judged.summary.get("settings", {}).get("limit")
    part = f" (first {limit} tasks)" if limit else ""
    return {
        "task": {"type": "text-generation"},
        "dataset": {"name": model.judged.name + part, "type": benchmark},
        "metrics": [
            {"type": f"pass@{k}", "name": f"pass@{k}", "value": model.pass_at(k)["value"]}
            for k in model.judged.summary["pass_at_k"]
            if model.pass_at(k)
        ],
    }


def _body(stage: Stage, models: list[Entry]) -> Iterator[str]:
    yield "Written by `temper card` from the files of the run."
    yield "## Results"
    yield from score_table(models)
    settings = [
        [f"{model.label}: {name.replace('_', ' ')}", str(model.judged.summary["settings"][name])]
        for model in models
        for name in ("samples", "temperature", "top_p", "max_new_tokens", "chat", "shots", "limit", "split")
        if model.judged.summary.get("settings", {}).get(name) is not None
    ]
    settings += [
        [f"{model.label}: benchmark sha256", model.judged.summary["benchmark_sha256"]]
        for model in models
        if model.judged.summary.get("benchmark_sha256")
    ]
    yield table(["setting", "value"], settings)
    yield "## Training"
    yield table(["fact", "value"], _training(stage))


def _training(stage: Stage) -> Iterator[list[str]]:
    run, facts = stage.run, stage.facts
    known = {
        "base model": run.get("model", {}).get("path"),
        "revision": run.get("model", {}).get("revision"),
        "method": facts.get("adapter"),
        **{name.replace("_", " "): facts.get(name) for name in TOLD},
        **{name.replace("_", " "): run.get("train", {}).get(name) for name in WISHED},
        "seed": run.get("seed"),
        "training data": ", ".join(
            str(source.get("path")) for source in run.get("data", {}).get("train", ())
        ),
        **{f"training {name.replace('_', ' ')}": value for name, value in _rows(facts)},
        "decontamination": facts.get("data", {}).get("decontamination"),
        "seconds": stage.training_seconds,
        **facts.get("versions", {}),
    }
    yield from ([name, str(value)] for name, value in known.items() if value not in (None, "", {}, []))


def _rows(facts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    train = facts.get("data", {}).get("train", {})
    yield from ((name, train.get(name)) for name in ("rows", "trained_tokens"))
