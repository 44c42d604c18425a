"""`temper demo`: the whole path on this machine's CPU, and in the end the bars it has to clear."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml

from engine import errors, protocol
from engine.config import Run, load
from engine.errors import WishError

CONFIGS = Path("configs/tiny")
GROUP = "compositions"
BESIDE = "families"
TRAINING_ROWS = 12_000
MARK = ".temper-demo"
"""In a folder a demo made, and so may remove."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One model of the demo: its run file, and what its pass@1 on held-out compositions must be."""

    name: str
    run_file: Path
    title: str
    at_least: float = 0.0
    at_most: float = 1.0

    @property
    def bar(self) -> str:
        """The bar in words."""
        return f"at least {self.at_least:.0%}" if self.at_least else f"at most {self.at_most:.0%}"

    def cleared(self, value: float) -> bool:
        """Whether a pass@1 clears the bar."""
        return self.at_least <= value <= self.at_most


STAGES = (
    Stage("base", CONFIGS / "base-eval.yaml", "the embedded base model", at_most=0.10),
    Stage("full", CONFIGS / "full.yaml", "every weight, bf16, ZeRO-2 on two processes", at_least=0.80),
    Stage("qlora", CONFIGS / "qlora.yaml", "QLoRA NF4, ZeRO-3 on two processes", at_least=0.60),
)


@click.command()
@click.option(
    "--out", default="runs/demo", show_default=True, help="Folder for everything; an old one is replaced."
)
@click.option("--seed", default=0, show_default=True, help="Seed of the training rows and of both trainings.")
def demo(out: str, seed: int) -> None:
    """Fine-tune the embedded model, full and QLoRA, and prove the gain by running what it writes.

    Takes minutes on two CPU cores and needs no download. Exit code 1 when a bar is missed.
    """
    missing = [str(stage.run_file) for stage in STAGES if not stage.run_file.is_file()]
    if missing:
        raise WishError(
            f"{', '.join(missing)} not found below {Path.cwd()}", "run the demo from the project's checkout"
        )
    # Ctrl-C goes to the whole terminal group: the stage under way stops in its own way, and this waits for it.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    sys.exit(Demo(Path(out), seed).run())


class Demo:
    """One go through all stages."""

    def __init__(self, out: Path, seed: int) -> None:
        self.out = out
        self.seed = seed
        self.seconds: dict[str, float] = {}

    def run(self) -> int:
        """All stages, then the report and the bars."""
        began = time.monotonic()
        self._clear()
        self._rows()
        for stage in STAGES:
            run = load(stage.run_file).run
            overrides = self._overrides(stage, run)
            if run.data is not None:
                self._step(
                    f"{stage.name}: train {stage.title}", stage.name, "train", str(stage.run_file), *overrides
                )
            title = f"{stage.name}: sample and run held-out tasks"
            self._step(title, f"{stage.name} evaluate", "evaluate", str(stage.run_file), *overrides)
        folders = [str(self.out / stage.name) for stage in STAGES]
        report, summary = self.out / "report.html", self.out / "summary.json"
        words = [
            "report",
            *folders,
            "--out",
            str(report),
            "--summary",
            str(summary),
            "--title",
            "Temper demo",
        ]
        self._step("report", "report", *words)
        self.seconds["all"] = time.monotonic() - began
        return self._judge(summary, report)

    def _clear(self) -> None:
        """Remove an old demo, and nothing that is none."""
        if self.out.is_file() or (
            self.out.is_dir() and any(self.out.iterdir()) and not (self.out / MARK).exists()
        ):
            raise WishError(
                f"{self.out} is not empty and no demo made it (it holds no {MARK})",
                "name another folder as --out, or empty it",
            )
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir(parents=True)
        (self.out / MARK).write_text("This folder is replaced by the next demo.\n", encoding="utf-8")

    def _rows(self) -> None:
        rows = ["benchmark", "export", "basics", "--split", "train", "--count", str(TRAINING_ROWS)]
        rows += ["--seed", str(self.seed), "--out", str(self._rows_file)]
        self._step("training rows of the basics benchmark", "rows", *rows)

    @property
    def _rows_file(self) -> Path:
        return self.out / "train.jsonl"

    def _overrides(self, stage: Stage, run: Run) -> list[str]:
        """What differs from the stage's file: nothing, unless another folder or seed was asked for."""
        wanted: dict[str, Any] = {"output": str(self.out / stage.name), "seed": self.seed}
        overrides = [f"{key}={value}" for key, value in wanted.items() if getattr(run, key) != value]
        if run.data is not None and run.data.train[0].path != str(self._rows_file):
            sources = [source.model_dump(mode="json", exclude_defaults=True) for source in run.data.train]
            sources[0]["path"] = str(self._rows_file)
            overrides.append(
                f"data.train={yaml.safe_dump(sources, default_flow_style=True, width=10**6).strip()}"
            )
        return [word for override in overrides for word in ("--set", override)]

    def _step(self, title: str, name: str, *words: str) -> None:
        """Run one verb of this very program; its output is the user's to watch."""
        print(f"\n=== {title}\n    temper {' '.join(words)}", flush=True)
        began = time.monotonic()
        code = subprocess.run([sys.executable, "-m", "launch", *words], check=False).returncode
        self.seconds[name] = time.monotonic() - began
        print(f"--- {name}: {self.seconds[name]:.0f} s", flush=True)
        if code:
            told = f"the demo ends here, since this stage ended with exit code {code}"
            print(errors.spoken(told), file=sys.stderr)
            sys.exit(code if code > 0 else errors.BUG)

    def _judge(self, summary: Path, report: Path) -> int:
        """Print the table of bars, add it to the summary, and say whether all were cleared."""
        found = json.loads(summary.read_text(encoding="utf-8"))
        lines = list(self._lines(found["stages"]))
        found["bars"] = [
            {"stage": line.stage.name, "bar": line.stage.bar, "pass@1": line.value, "cleared": line.cleared}
            for line in lines
        ]
        found["wall_seconds"] = {name: round(value, 1) for name, value in self.seconds.items()}
        protocol.write_json(summary, found)
        print(f"\n{'':7}{'pass@1 on ' + GROUP:>24}{'pass@10':>9}{BESIDE:>10}{'seconds':>9}  bar")
        for line in lines:
            print(line.text(self.seconds))
        print(
            f"{BESIDE}: operations that no training row has; models this small are not expected to solve them"
        )
        print(f"\n{report} and {summary}, {self.seconds['all']:.0f} s in all")
        missed = [line.stage.name for line in lines if not line.cleared]
        if missed:
            print(errors.spoken(f"the bar is missed by {', '.join(missed)}"), file=sys.stderr)
        return errors.BUG if missed else errors.DONE

    def _lines(self, rows: Sequence[dict[str, Any]]) -> Iterator[Line]:
        for stage in STAGES:
            row = next(row for row in rows if Path(row["run"]).name == stage.name)
            yield Line(
                stage, row["groups"][GROUP]["pass_at_k"], row["groups"].get(BESIDE, {}).get("pass_at_k", {})
            )


@dataclass(frozen=True, slots=True)
class Line:
    """One stage's figures: pass@k on the bar's group, and on the group beside it."""

    stage: Stage
    passes: dict[str, Any]
    beside: dict[str, Any]

    @property
    def value(self) -> float:
        """pass@1 on the bar's group."""
        return float(self.passes["1"]["value"])

    @property
    def cleared(self) -> bool:
        """Whether it clears the bar."""
        return self.stage.cleared(self.value)

    def text(self, seconds: dict[str, float]) -> str:
        """The line as printed."""
        one = self.passes["1"]
        first = f"{one['value']:.1%} ({one['low']:.1%} to {one['high']:.1%})"
        ten = f"{self.passes['10']['value']:.1%}" if "10" in self.passes else ""
        families = f"{self.beside['1']['value']:.1%}" if "1" in self.beside else ""
        spent = sum(value for name, value in seconds.items() if name.split()[0] == self.stage.name)
        verdict = "cleared" if self.cleared else "MISSED"
        return (
            f"{self.stage.name:<7}{first:>24}{ten:>9}{families:>10}{spent:>9.0f}  {self.stage.bar}: {verdict}"
        )
