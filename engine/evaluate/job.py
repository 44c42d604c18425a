"""An evaluation as a value: its settings, its samples in canonical order, and the files it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.config import Run
from engine.evaluate.judge import Court
from engine.evaluate.libraries import Missing
from engine.evaluate.origin import Origin
from engine.evaluate.shots import Shot, fingerprint
from engine.evaluate.task import Task
from engine.generate import AUTO, Generation, Request, Thinking, extract
from engine.sandbox import Limits


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything besides the tasks that decides an evaluation's result."""

    model: str
    """Names the weights, e.g. folder and step: answers by other weights in the same folder are not reused."""
    samples: int = 1
    k: tuple[int, ...] = (1,)
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 512
    seed: int = 0
    court: Court = Court()
    system: str | None = None
    prefix: str = ""
    shots: int = 0
    shots_sha256: str = ""
    """Of the examples put before each task; empty without any."""
    thinking: Thinking = AUTO
    data: str | None = None
    split: str = "test"
    limit: int | None = None
    efficiency: int | None = None
    """Runs of each passing program and its reference after judging; None: none are measured."""
    static: bool = False

    @classmethod
    def of(cls, run: Run, *, model: str, shots: Sequence[Shot] = (), in_loop: bool = False) -> Settings:
        """The settings a Run asks for; in the loop, with its fewer samples and the k that these allow."""
        wish, box = run.evaluate, run.sandbox
        samples = wish.in_loop_samples if in_loop else wish.samples
        limits = Limits(cpu_seconds=box.cpu_seconds, wall_seconds=box.wall_seconds, memory_mb=box.memory_mb)
        return cls(
            model=model,
            samples=samples,
            k=tuple(k for k in wish.k if k <= samples) or (1,),
            temperature=wish.temperature,
            top_p=wish.top_p,
            max_new_tokens=wish.max_new_tokens,
            seed=run.seed,
            court=Court(limits, box.level, box.workers, box.mode, box.preload, box.engine),
            system=wish.system,
            prefix=wish.prefix,
            shots=len(shots),
            shots_sha256=fingerprint(shots),
            thinking=Thinking.of(wish.thinking),
            data=wish.data,
            split="validation" if in_loop else wish.split,
            limit=wish.in_loop_limit if in_loop else wish.limit,
            efficiency=None if in_loop else wish.efficiency,
            static=wish.static and not in_loop,
        )


@dataclass(frozen=True, slots=True)
class Item:
    """One sample of one task, and the key its answer has in the journals."""

    task: Task
    request: Request
    key: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where an evaluation leaves its files, and who of how many is writing."""

    folder: Path
    rank: int = 0
    world_size: int = 1
    drawn: Path | None = None
    """Where the answers were drawn, if not here."""

    @property
    def generations(self) -> Path:
        """This rank's journal of answers."""
        return self.folder / f"generations-rank{self.rank}.jsonl"

    @property
    def verdicts(self) -> Path:
        """Rank 0's journal of verdicts."""
        return self.folder / "verdicts.jsonl"

    @property
    def measurements(self) -> Path:
        """Rank 0's journal of how programs compare with their references."""
        return self.folder / "measurements.jsonl"

    def journals(self) -> list[Path]:
        """All ranks' journals of answers, of this run and of earlier ones with other world sizes."""
        return sorted((self.drawn or self.folder).glob("generations-rank*.jsonl"))


@dataclass(frozen=True, slots=True)
class Job:
    """All of an evaluation."""

    tasks: tuple[Task, ...]
    benchmark: str
    settings: Settings
    chat: bool
    items: list[Item]
    place: Place
    not_judged: Missing = field(default_factory=dict)
    """What was left out of the tasks, and why."""
    origin: Origin | None = None
    """What the tasks were read from."""

    def completion(self, item: Item, answer: Generation) -> str:
        """What an answer adds to the task's prompt."""
        how = {"chat": self.chat, "thinking": self.settings.thinking, "rendered": item.request.prompt}
        return extract(answer.text, item.task, **how)  # type: ignore[arg-type]

    def only_thinks(self, item: Item, answer: Generation) -> bool:
        """Whether an answer is thinking without an end."""
        return self.chat and self.settings.thinking.answer(answer.text, prompt=item.request.prompt) is None
