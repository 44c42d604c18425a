"""The report: one page, without network, of run folders side by side."""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from engine import protocol
from engine.evaluate.report.charts import Series, line_chart
from engine.evaluate.report.highlight import highlight, visible
from engine.evaluate.report.programs import task_rows
from engine.evaluate.report.ratios import described, drawn
from engine.evaluate.report.stages import COLOURS, Entry, Stage, asked_ks, entries, hat_ks
from engine.sandbox import VERDICTS

PAGE = Path(__file__).parent / "assets"
PROGRAMS = 12
"""Tasks shown side by side."""
OPEN_PROGRAMS = 3
STDERR_LINES = 12


@dataclass(frozen=True, slots=True)
class Shown:
    """One task with every model's program."""

    task_id: str
    group: str
    prompt: Markup
    reference: Markup
    answers: list[tuple[Entry, dict[str, Any], Markup]]
    """(model, line of results.jsonl, its completion as HTML)."""


def write(stages: Sequence[Stage], out: Path, *, title: str = "Temper report") -> None:
    """Write the page; readers see the old one or the new one, never half of it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "duration": _duration}
    models = entries(stages)
    # The policy names the one script that may run by its hash; the text between its tags must be these bytes.
    script = "".join((PAGE / name).read_text(encoding="utf-8") for name in ("colours.js", "viewer.js"))
    html = environment.get_template("report.html").render(
        title=title,
        style=Markup((PAGE / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        rows=task_rows(models),
        curves=_curves(models),
        ratios=list(drawn(models)),
        described=list(described(models)),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        models=models,
        stages=stages,
        colours={stage.name: colour for stage, colour in _colours(stages, models)},
        ks=asked_ks(models),
        hats=hat_ks(models),
        groups=_groups(models),
        counts={group: _told(m.figures(group).get("tasks") for m in models) for group in _groups(models)},
        benchmarks=_benchmarks(models),
        isolation=" and ".join(sorted({m.judged.summary.get("isolation") or "" for m in models} - {""})),
        charts=list(_charts(stages, models)),
        verdicts=[name for name in VERDICTS if any(e.judged.summary["verdicts"].get(name) for e in models)],
        settings=_settings(models),
        shown=_shown(models),
        open_programs=OPEN_PROGRAMS,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    partial.write_text(html, encoding="utf-8", errors="replace")
    os.replace(partial, out)


def summarise(stages: Sequence[Stage], out: Path) -> None:
    """Write each stage's strategy in force, world size, pass@k with intervals, and seconds as JSON."""
    found = []
    for entry in entries(stages):
        facts, summary = (entry.stage.facts if entry.trained else {}), entry.judged.summary
        values = {f"pass@{k}": estimate.get("value") for k, estimate in summary["pass_at_k"].items()}
        found.append(
            {
                "stage": entry.label,
                "run": str(entry.stage.folder),
                "evaluation": entry.judged.name,
                "adapter": facts.get("adapter"),
                "strategy": facts.get("strategy"),
                "precision": facts.get("precision"),
                "world_size": facts.get("world_size"),
                **values,
                "pass_at_k": summary["pass_at_k"],
                "pass_hat_k": summary.get("pass_hat_k", {}),
                "groups": summary["groups"],
                "verdicts": summary["verdicts"],
                "isolation": summary.get("isolation"),
                "seconds": {
                    "training": entry.stage.training_seconds if entry.trained else None,
                    **summary.get("seconds", {}),
                },
            }
        )
    protocol.write_json(out, {"stages": found})


def _told(counts: Iterable[int | None]) -> str:
    """How many tasks there are, where models may have been asked different ones."""
    return (
        " or ".join(str(count) for count in sorted({count for count in counts if count is not None})) or "no"
    )


def _benchmarks(models: Sequence[Entry]) -> dict[str, str]:
    """Each benchmark with how many of its tasks were asked."""
    summaries = [model.judged.summary for model in models]
    names = dict.fromkeys(str(summary["benchmark"]) for summary in summaries)
    return {name: _told(s["tasks"] for s in summaries if str(s["benchmark"]) == name) for name in names}


def _groups(models: Sequence[Entry]) -> list[str]:
    """All tasks first (the empty name), then the groups in the benchmark's order."""
    return ["", *dict.fromkeys(name for model in models for name in model.judged.summary["groups"])]


def _colours(stages: Sequence[Stage], models: Sequence[Entry]) -> Iterator[tuple[Stage, int]]:
    """A stage's curves have the colour of the model it made."""
    for number, stage in enumerate(stages):
        own = [model.colour for model in models if model.stage is stage and not model.judged.of_start]
        yield stage, own[-1] if own else (len(models) + number) % COLOURS


def _charts(stages: Sequence[Stage], models: Sequence[Entry]) -> Iterator[tuple[str, str, Markup]]:
    """(heading, sentence, SVG) of each chart that has data."""
    coloured = list(_colours(stages, models))
    loss = [Series(stage.name, stage.series("loss"), colour, smooth=True) for stage, colour in coloured]
    held = [
        Series(stage.name, stage.series("validation_loss"), colour, dashed=True, markers=True)
        for stage, colour in coloured
    ]
    solid = "Loss per trained token"
    text = f"{solid}; dashed: on held-out rows." if any(line.points for line in held) else f"{solid}."
    yield "Training loss", text, line_chart([*loss, *held], label="training loss by step")
    for name in dict.fromkeys(name for stage in stages for name in stage.pass_metrics()):
        curves = [
            Series(stage.name, stage.series(name), colour, markers=True, band=stage.band(name))
            for stage, colour in coloured
        ]
        text = "Tasks generated and executed while training; shaded: 95 % interval."
        yield f"{name} in the loop", text, line_chart(curves, label=f"{name} by step", percent=True)


def _curves(models: Sequence[Entry]) -> Markup:
    """pass@k by k, on a scale where each doubling of k is one step; empty with one k alone."""
    series = []
    for model in models:
        found = [(math.log2(int(k)), model.pass_at(k)) for k in asked_ks([model]) if model.pass_at(k)]
        points = [(x, estimate["value"]) for x, estimate in found]
        band = [(x, estimate["low"], estimate["high"]) for x, estimate in found]
        series.append(Series(model.label, points, model.colour, markers=True, band=band))
    if max((len(line.points) for line in series), default=0) < 2:
        return Markup("")
    marks = [(math.log2(int(k)), k) for k in asked_ks(models)]
    return line_chart(series, label="pass@k by k", across="k", percent=True, marks=marks)


def _settings(models: Sequence[Entry]) -> list[tuple[str, list[str]]]:
    """Rows of the table of settings in force: a name, and its value for each model."""
    rows: dict[str, list[str]] = {}
    for number, model in enumerate(models):
        for name, value in _in_force(model):
            if value not in (None, "", {}, []):
                rows.setdefault(name, [""] * len(models))[number] = _text(value)
    return list(rows.items())


def _in_force(model: Entry) -> Iterator[tuple[str, Any]]:
    run, facts, summary = model.stage.run, model.stage.facts, model.judged.summary
    settings = summary.get("settings", {})
    yield "model", run.get("model", {}).get("path") or settings.get("model")
    if model.trained:
        train = run.get("train", {})
        for name in ("strategy", "world_size", "precision", "adapter", "device", "attention"):
            yield name.replace("_", " "), facts.get(name)
        for name in ("trained_parameters", "parameters", "steps"):
            yield name.replace("_", " "), facts.get(name)
        for name in ("global_batch", "micro_batch", "optimizer", "learning_rate", "schedule"):
            yield name.replace("_", " "), train.get(name)
        yield "seed", run.get("seed")
        data = facts.get("data", {})
        yield "training rows", data.get("train", {}).get("rows")
        yield "trained tokens an epoch", data.get("train", {}).get("trained_tokens")
        yield "decontamination", data.get("decontamination")
    for name in ("temperature", "top_p", "samples", "max_new_tokens", "chat", "shots", "system", "prefix"):
        yield name.replace("_", " "), settings.get(name)
    if settings.get("chat") and (rule := settings.get("thinking")):
        yield "thinking", f"{rule['name']}, version {rule['version']}"
    court = settings.get("court") or {}
    for name, value in (summary.get("limits") or court.get("limits") or {}).items():
        yield f"limit: {name.replace('_', ' ')}", value
    yield "sandbox mode", court.get("mode")
    yield "isolation", summary.get("isolation")
    yield "extraction version", summary.get("extract_version")
    yield "benchmark", summary["benchmark"]
    yield "benchmark sha256", summary.get("benchmark_sha256")
    data = summary.get("data") or {}
    yield "tasks' file sha256", data.get("sha256")
    yield "tasks' revision", data.get("revision")
    for name, value in (model.judged.hashes or {}).items():
        yield f"{name} sha256", value
    if model.trained:
        for name, version in facts.get("versions", {}).items():
            yield name, version


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " to ".join(map(_text, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def _shown(models: Sequence[Entry]) -> list[Shown]:
    """Tasks worth reading: those a later model solves and the first did not, then others; groups take turns."""
    if not models:
        return []
    tasks = {name: task for model in models for name, task in model.judged.tasks.items()}
    by_kind: dict[tuple[bool, str], list[str]] = {}
    for name, task in tasks.items():
        verdicts = [model.judged.results.get((name, 0), {}).get("verdict") for model in models]
        told = all("completion" in model.judged.results.get((name, 0), {}) for model in models)
        if told:
            gained = verdicts[0] != "passed" and "passed" in verdicts[1:]
            by_kind.setdefault((not gained, task["group"]), []).append(name)
    chosen: list[str] = []
    for wanted, room in ((False, PROGRAMS * 3 // 4), (True, PROGRAMS)):
        queues = [names for (kind, _), names in sorted(by_kind.items()) if kind == wanted]
        while len(chosen) < room and any(queues):
            chosen += [queue.pop(0) for queue in queues if queue][: room - len(chosen)]
    return [_side_by_side(tasks[name], models) for name in chosen]


def _side_by_side(task: dict[str, Any], models: Sequence[Entry]) -> Shown:
    answers, language = [], task.get("language", "python")
    for model in models:
        line = model.judged.results.get((task["task_id"], 0))
        if line is not None:
            stderr = "\n".join(visible(line["stderr"]).strip().splitlines()[-STDERR_LINES:])
            line = line | {"stderr": stderr, "detail": visible(line["detail"])}
            answers.append((model, line, highlight(line["completion"].rstrip(), language)))
    return Shown(
        task_id=task["task_id"],
        group=task["group"],
        prompt=highlight(task["prompt"].rstrip(), language),
        reference=highlight(task["reference"].rstrip(), language),
        answers=answers,
    )


def _percent(value: float) -> str:
    """Whole figures for the eye, one decimal where it says more."""
    shown = f"{value * 100:.1f}"
    return shown.removesuffix(".0") + " %"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
