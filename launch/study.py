"""The search as Optuna keeps it: its journal, what to try next, when to give up; the one home of Optuna.

What is suggested depends on the run's seed, the trial's number and the trials that have ended, and on nothing else: a
search that was killed and goes on suggests what it would have suggested.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

from engine.errors import WishError
from launch.space import Dimension, settings

JOURNAL = "journal.log"
NAME = "temper"
# A search of few trials tells little of what mattered.
IMPORTANCE_TRIALS = 10
State = Literal["running", "done", "pruned", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What makes trials comparable, and so stays the same for a whole search: `run` is the effective Run as YAML."""

    run: str
    space: tuple[Dimension, ...]
    metric: str
    minimize: bool
    take: str


@dataclass(frozen=True, slots=True)
class Method:
    """How a search goes about it; may change when it is continued.

    Attributes:
        sampler: `tpe` or `random`.
        pruner: `median`, `hyperband` or `none`.
        startup: trials that must have ended before one is pruned, or before `tpe` does more than draw.
        warmup: steps of a trial before it may be pruned.
        most_steps: steps of a whole trial; None where the data decides.
    """

    sampler: str = "tpe"
    pruner: str = "median"
    startup: int = 5
    warmup: int = 0
    most_steps: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A trial as a table shows it; `words` are its `--set` texts."""

    number: int
    state: State
    value: float | None
    step: int | None
    words: tuple[str, ...]
    reason: str
    seconds: float | None


class Claimed:
    """A trial that this process, and no other, works on."""

    def __init__(
        self, trial: Any, lock: IO[str], folder: Path, words: tuple[str, ...], *, resumed: bool
    ) -> None:
        self.number: int = trial.number
        self.folder = folder
        self.words = words
        self.resumed = resumed
        self.trial = trial
        self._lock = lock
        self._seen = set(trial.storage.get_trial(trial._trial_id).intermediate_values)

    def report(self, value: float, step: int) -> bool:
        """Tell of a measurement; True if the trial is not worth going on with."""
        if step not in self._seen:
            self._seen.add(step)
            self.trial.report(value, step)
        return bool(self.trial.should_prune())

    def release(self) -> None:
        """Let others see that this process has let go of it."""
        self._lock.close()


class Search:
    """The trials in `folder`, shared with every process that works on the same search."""

    def __init__(self, folder: Path, method: Method, *, seed: int) -> None:
        self.folder = folder
        self.method = method
        self.seed = seed
        self.optuna = _optuna()
        folder.mkdir(parents=True, exist_ok=True)
        journal = _Journal(folder / JOURNAL)
        with journal:
            _mend(folder / JOURNAL)
        backend = self.optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL), lock_obj=journal)
        self.storage = self.optuna.storages.JournalStorage(backend)

    def begin(self, wish: Wish, first: dict[str, Any] | None) -> None:
        """Begin the search, or go on with the one that is there.

        Args:
            wish: what it is about.
            first: values of the first trial; None: it is drawn like the others.

        Raises:
            WishError: the one that is there is about something else.
        """
        with self._alone():
            self.study = self.optuna.create_study(
                study_name=NAME,
                storage=self.storage,
                direction="minimize" if wish.minimize else "maximize",
                pruner=_pruner(self.optuna, self.method),
                load_if_exists=True,
            )
            if "wish" not in self.study.user_attrs:
                if first is not None:
                    self.study.enqueue_trial(first)
                self.study.set_user_attr("wish", asdict(wish))
        self.wish = self.read()
        if self.wish != wish:
            raise WishError(
                f"{self.folder} holds another search: {_difference(self.wish, wish)}",
                "search in another folder (--folder), or remove this one",
            )

    def read(self) -> Wish:
        """The search that is there.

        Raises:
            WishError: there is none.
        """
        try:
            self.study = self.optuna.load_study(study_name=NAME, storage=self.storage)
            kept = self.study.user_attrs["wish"]
        except KeyError:
            raise WishError(f"{self.folder} holds no search", "start one with `temper tune`") from None
        self.study.pruner = _pruner(self.optuna, self.method)
        space = tuple(Dimension(**one | {"choices": tuple(one["choices"])}) for one in kept["space"])
        self.wish = Wish(**kept | {"space": space})
        return self.wish

    def claim(self, most: int) -> Claimed | None:
        """A trial to work on: one that nobody works on any more, else a new one while there are fewer than `most`."""
        with self._alone():
            trials = self.study.get_trials(deepcopy=False)
            for one in trials:
                if one.state.name == "RUNNING" and (lock := self._lock(one.number)) is not None:
                    self._seed(one.number)
                    return self._claimed(
                        self.optuna.trial.Trial(self.study, one._trial_id), lock, resumed=True
                    )
            if sum(one.state.name != "WAITING" for one in trials) >= most:
                return None
            waiting = [one.number for one in trials if one.state.name == "WAITING"]
            number = waiting[0] if waiting else len(trials)
            self._seed(number)
            lock = self._lock(number)
            assert lock is not None  # nobody claims but within this lock
            return self._claimed(self.study.ask(), lock, resumed=False)

    def tell(self, claimed: Claimed, state: State, *, value: float | None = None, **notes: Any) -> None:
        """Write down how a trial ended; `notes`: its `step`, `reason` and `seconds`."""
        for name, note in {"ended": state, **notes}.items():
            claimed.trial.set_user_attr(name, note)
        if state == "done":
            self.study.tell(claimed.number, value)
        else:
            states = self.optuna.trial.TrialState
            self.study.tell(claimed.number, state=states.FAIL if state == "failed" else states.PRUNED)

    def rows(self) -> list[Row]:
        """All trials so far, in order."""
        return [
            Row(
                one.number,
                one.user_attrs.get("ended", "running"),
                one.value if one.state.name == "COMPLETE" else _last(one.intermediate_values),
                one.user_attrs.get("step", one.last_step),
                settings(self.wish.space, one.params) if len(one.params) == len(self.wish.space) else (),
                one.user_attrs.get("reason", ""),
                one.user_attrs.get("seconds"),
            )
            for one in self.study.get_trials(deepcopy=False)
            if one.state.name != "WAITING"
        ]

    def best(self) -> Row | None:
        """The trial with the best value of those that came to their end; of equals the first."""
        ended = [row for row in self.rows() if row.state == "done" and row.value is not None]
        sign = 1 if self.wish.minimize else -1
        return min(ended, key=lambda row: (sign * (row.value or 0.0), row.number), default=None)

    def importance(self) -> dict[str, float] | None:
        """How much of the differences each key accounts for (PED-ANOVA, arXiv 2304.10255); None for too few trials."""
        if sum(row.state == "done" for row in self.rows()) < IMPORTANCE_TRIALS:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = self.optuna.importance.get_param_importances(self.study)
            except (ValueError, RuntimeError):  # every trial had the same value
                return None
        return {name: float(share) for name, share in found.items() if math.isfinite(share)}

    def trial_folder(self, number: int) -> Path:
        """The run folder of a trial."""
        return self.folder / f"trial-{number:04d}"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self.folder / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _lock(self, number: int) -> IO[str] | None:
        """The lock of a trial, which the kernel takes from a process that dies; None: another process has it."""
        folder = self.trial_folder(number)
        folder.mkdir(exist_ok=True)
        file = (folder / ".tune").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return None
        return file

    def _seed(self, number: int) -> None:
        text = f"{self.seed} tune {number}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
        samplers = self.optuna.samplers
        self.study.sampler = (
            samplers.RandomSampler(seed=seed)
            if self.method.sampler == "random"
            else samplers.TPESampler(seed=seed, n_startup_trials=self.method.startup)
        )

    def _claimed(self, trial: Any, lock: IO[str], *, resumed: bool) -> Claimed:
        values = {one.key: self._suggest(trial, one) for one in self.wish.space}
        return Claimed(
            trial, lock, self.trial_folder(trial.number), settings(self.wish.space, values), resumed=resumed
        )

    def _suggest(self, trial: Any, one: Dimension) -> Any:
        if one.kind == "choice":
            return trial.suggest_categorical(one.key, one.choices)
        if one.kind == "int":
            step = 1 if one.step is None else int(one.step)
            return trial.suggest_int(one.key, int(one.low), int(one.high), step=step, log=one.log)
        return trial.suggest_float(one.key, one.low, one.high, step=one.step, log=one.log)


class _Journal:
    """The lock of the journal, as Optuna asks for one. Its own outlive a killed process; this one does not."""

    def __init__(self, journal: Path) -> None:
        self._path = journal.with_suffix(".lock")
        self._file: IO[str] | None = None

    def acquire(self) -> bool:
        """Wait for it."""
        file = self._path.open("a")
        fcntl.flock(file, fcntl.LOCK_EX)
        self._file = file
        return True

    def release(self) -> None:
        """Give it back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()


def _mend(journal: Path) -> None:
    """Cut off a last line that a killed process could not finish: the next one would be glued to it."""
    with suppress(FileNotFoundError), journal.open("r+b") as file:
        text = file.read()
        if not text.endswith(b"\n"):
            file.truncate(text.rfind(b"\n") + 1)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise WishError("the search needs optuna", "pip install 'temper-llm[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _pruner(optuna: Any, method: Method) -> Any:
    if method.pruner == "none":
        return optuna.pruners.NopPruner()
    if method.pruner == "hyperband":
        # Brackets of 3: the shortest trials see a 27th of the steps.
        steps = method.most_steps
        least = max(1, method.warmup, (steps or 27) // 27)
        return optuna.pruners.HyperbandPruner(min_resource=least, max_resource=steps or "auto")
    return optuna.pruners.MedianPruner(n_startup_trials=method.startup, n_warmup_steps=method.warmup)


def _last(values: dict[int, float]) -> float | None:
    return values[max(values)] if values else None


def _difference(old: Wish, new: Wish) -> str:
    """In what two searches differ, the first thing of it."""
    for name, before, after in (
        ("the metric", old.metric, new.metric),
        ("which is best", "min" if old.minimize else "max", "min" if new.minimize else "max"),
        ("which measurement counts", old.take, new.take),
    ):
        if before != after:
            return f"{name} was {before} and is {after}"
    before_space, after_space = _texts(old.space), _texts(new.space)
    if before_space != after_space:
        gone = [text for text in before_space if text not in after_space]
        come = [text for text in after_space if text not in before_space]
        return f"the space had {'; '.join(gone) or 'less'} and has {'; '.join(come) or 'less, or in another order'}"
    lines = zip(old.run.splitlines(), new.run.splitlines(), strict=False)
    changed = next(((a.strip(), b.strip()) for a, b in lines if a != b), ("", ""))
    return f"the run had `{changed[0]}` and has `{changed[1]}`"


def _texts(space: Sequence[Dimension]) -> list[str]:
    return [one.text for one in space]
