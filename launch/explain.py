"""`temper explain RUN`: what happened, attempt by attempt, and where the time went."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from engine import errors, protocol
from engine.errors import WishError
from launch import attempts
from launch.attempts import Attempt
from launch.verdict import duration

# Phase of a rank: what its time is counted as. What an attempt took beside its phases is starting and ending it.
SPENT_ON = {
    "start": "start",
    "prepare": "start",
    "model": "start",
    "rehearse": "start",
    "resume": "start",
    "data": "data",
    "agree": "train",
    "forward": "train",
    "backward": "train",
    "optimizer": "train",
    "log": "train",
    "validate": "evaluate",
    "evaluate": "evaluate",
    "save": "save",
    "finish": "save",
}
KINDS = {
    "train": "steps that count",
    "data": "waiting for batches",
    "evaluate": "validation and pass@k",
    "save": "checkpoints and final weights",
    "start": "starting ranks, reading data and weights, rehearsing, ending",
    "redone": "steps an attempt took and lost",
    "idle": "between attempts",
}
BAR = 30


@dataclass(frozen=True, slots=True)
class Account:
    """Where the time of a run went.

    Attributes:
        seconds: each of `KINDS`, on rank 0; together the time from the first start to the last end.
        steps_lost: steps that were taken and not saved before a failed attempt ended.
    """

    seconds: dict[str, float]
    steps_lost: int

    @property
    def goodput(self) -> float:
        """Share of the time that went into steps that count."""
        whole = sum(self.seconds.values())
        return self.seconds["train"] / whole if whole else 0.0


def account(history: Sequence[Attempt]) -> Account:
    """Add up a run's attempts of training."""
    seconds = dict.fromkeys(KINDS, 0.0)
    steps_lost = 0
    for attempt, following in zip(history, [*history[1:], None], strict=True):
        for phase, spent in attempt.seconds.items():
            seconds[SPENT_ON[phase]] += spent
        seconds["start"] += max(0.0, attempt.ended - attempt.started - sum(attempt.seconds.values()))
        lost = _lost(attempt)
        if lost and attempt.first_step is not None and attempt.last_step is not None:
            # A step costs what the attempt's steps cost on average.
            share = lost / (attempt.last_step - attempt.first_step + 1)
            for kind in ("train", "data"):
                again = share * sum(
                    spent for phase, spent in attempt.seconds.items() if SPENT_ON[phase] == kind
                )
                seconds[kind] -= again
                seconds["redone"] += again
        steps_lost += lost
        if following is not None:
            seconds["idle"] += max(0.0, following.started - attempt.ended)
    return Account(seconds, steps_lost)


def _lost(attempt: Attempt) -> int:
    """Steps worked on that no checkpoint holds, of an attempt that did not end well."""
    if attempt.exit_code == errors.DONE or attempt.first_step is None or attempt.last_step is None:
        return 0
    kept = max(attempt.first_step - 1, attempt.saved or 0)
    return max(0, attempt.last_step - kept)


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print attempts and times as JSON.")
def explain(folder: Path, as_json: bool) -> None:
    """Tell what happened in a run's folder, attempt by attempt, and where the time went."""
    history = read(folder)
    training = [attempt for attempt in history if attempt.verb == "train"]
    if as_json:
        found = account(training)
        times = asdict(found) | {"goodput": found.goodput}
        click.echo(
            json.dumps({"attempts": [asdict(attempt) for attempt in history], "time": times}, indent=1)
        )
        return
    click.echo("\n".join(told(folder, history, training)))


def read(folder: Path) -> list[Attempt]:
    """The attempts of a run folder.

    Raises:
        WishError: there are none.
    """
    history = attempts.read(folder)
    if not history:
        if folder.is_file():
            raise WishError(f"{folder} is a file", "give the run's folder, which is `output` in the run file")
        raise WishError(
            f"{folder} holds no attempt that has ended ({protocol.ATTEMPTS})",
            "give the folder of a run started by `temper train` or `temper evaluate`",
        )
    return history


def told(folder: Path, history: Sequence[Attempt], training: Sequence[Attempt]) -> Iterator[str]:
    """The account as a person reads it."""
    known = {attempt.number: attempt for attempt in history}
    count = attempts.next_number(folder) - 1
    yield f"{folder}: {count} attempt{'s' if count > 1 else ''}"
    for number in range(1, count + 1):
        yield ""
        if number in known:
            yield from _attempt(folder, known[number])
        else:
            open_end = "is under way, or " if number == count else ""
            yield f"attempt {number}: {open_end}left no word, as when its machine goes down"
    if training:
        yield ""
        yield from _times(account(training))
        yield from _performance(folder)


def _attempt(folder: Path, attempt: Attempt) -> Iterator[str]:
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(attempt.started))
    ranks = f"{attempt.ranks} rank{'s' if attempt.ranks > 1 else ''} on {', '.join(attempt.hosts)}"
    took = duration(attempt.ended - attempt.started)
    yield f"attempt {attempt.number}: {attempt.verb}, {began}, {took}, {ranks}"
    if attempt.first_step is not None:
        saved = (
            f"newest checkpoint step {attempt.saved}" if attempt.saved is not None else "no checkpoint saved"
        )
        yield f"  steps {attempt.first_step} to {attempt.last_step}, {saved}"
    code = "" if attempt.exit_code is None else f" (exit code {attempt.exit_code})"
    asked = f" It was asked to stop by {attempt.asked}." if attempt.asked else ""
    yield f"  {attempt.sentence}{asked}{code}"
    logs = attempts.log_folder(folder, attempt.number)
    if attempt.exit_code != errors.DONE and logs.is_dir():
        yield f"  logs: {logs}"


def _times(found: Account) -> Iterator[str]:
    whole = sum(found.seconds.values())
    good = f"{found.goodput:.0%} of it in steps that count"
    yield f"training took {duration(whole)} from its first start to its last end, {good}"
    for kind, meaning in KINDS.items():
        spent = found.seconds[kind]
        share = spent / whole if whole else 0.0
        bar = "█" * round(BAR * share)
        yield f"  {kind:<9}{spent:>10.1f} s {share:>5.0%}  {bar:<{BAR}}  {meaning}"
    if found.steps_lost:
        yield f"steps taken and lost: {found.steps_lost}"


def _performance(folder: Path) -> Iterator[str]:
    """What the last attempt that came to its end printed of its speed."""
    try:
        card = json.loads((folder / protocol.PERF).read_text(encoding="utf-8"))
        lines = [str(line) for line in card["summary"]]
    except (OSError, ValueError, TypeError, KeyError):
        return
    if lines:
        yield ""
        yield from lines
