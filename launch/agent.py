"""Supervision on one machine: start the ranks, hand signals on, stop whole trees, and say how it ended."""

from __future__ import annotations

import fcntl
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from engine import errors, heartbeat, protocol
from engine.errors import PreflightError, WishError
from launch import attempts, processes
from launch.account import Account
from launch.command import GRACE_SECONDS, LaunchPlan
from launch.console import Console
from launch.echo import Echo
from launch.hang import Hang, told_apart
from launch.others import Others
from launch.patrol import Patrol
from launch.records import last_step
from launch.reports import Peers
from launch.verdict import Death, Evidence, Verdict, decide, reported_deaths, results_since
from launch.watchdog import Watchdog

LOOK_SECONDS = 0.05
AFTER_DEATH_SECONDS = 8.0
# Between the first rank that ends well and the last, one rank may still be writing a large model.
AFTER_EXIT_SECONDS = 1800.0
ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


def supervise(
    plan: LaunchPlan, *, after_exit_seconds: float = AFTER_EXIT_SECONDS, peers: Peers | None = None
) -> Verdict:
    """Run a plan to its end and say how it ended. No process of it is alive when this returns.

    Args:
        plan: what to start.
        after_exit_seconds: how long the other ranks may go on after one has ended with exit code 0.
        peers: the other nodes of the attempt; the verdict is then this node's part, and told by who hears all.

    Raises:
        WishError: another launcher is at work in the same run folder, or it cannot be written.
        PreflightError: `accelerate` is not installed beside this Python.
    """
    try:
        plan.logs.mkdir(parents=True, exist_ok=True)
        lock_file = (plan.logs / (f".lock-{plan.node}" if plan.node else ".lock")).open("a")
    except OSError as error:
        raise unwritable(plan, error) from None
    with lock_file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise WishError(
                f"another launcher is at work in {plan.folder}",
                "wait for it, or give this run its own `output`",
            ) from None
        if peers is not None:
            return _Attempt(plan, after_exit_seconds, peers).run()
        restart = 0
        while True:
            forget_last_attempt(plan)
            attempt = _Attempt(plan, after_exit_seconds)
            verdict = attempt.run()
            if restart == plan.restarts or attempt.asked or not verdict.restartable:
                return verdict
            restart += 1
            saved = attempts.saved_step(plan.folder)
            origin = "the beginning" if saved is None else f"step {saved}"
            _say(f"starting again from {origin} (restart {restart} of {plan.restarts})")


class _Attempt:
    """One start of one plan, from its first process to its last."""

    def __init__(self, plan: LaunchPlan, after_exit_seconds: float, peers: Peers | None = None) -> None:
        self.plan = plan
        self.peers = peers
        self.after_exit_seconds = after_exit_seconds
        self.started = protocol.now()
        self.name = f"{int(self.started)}-{os.getpid()}"
        self.mark = f"{protocol.ATTEMPT_VARIABLE}={self.name}".encode()
        self.ranks: dict[int, int] = {}
        self.deaths: list[Death] = []
        self.asked: str | None = None
        self.killed: str | None = None
        self.hang: Hang | None = None
        self.deadline: float | None = None
        self.selector = selectors.DefaultSelector()

    def run(self) -> Verdict:
        executable = _accelerate(self.plan.argv[0])
        self.patrol = Patrol(
            self.plan.folder,
            self.plan.limits,
            lockstep=self.plan.verb == "train",
            expected=self.plan.processes,
            others=self._others(),
        )
        try:
            self.account = Account(self.plan, self.patrol, alone=self.peers is None)
        except OSError as error:
            self.patrol.close()
            raise unwritable(self.plan, error) from None
        watchdog = Watchdog(self.mark, self._last_words)
        first = self.plan.first_rank
        self.console = Console(self.account.logs / f"rank-{first}.log", report_of=executable)
        self.echo = Echo(
            self.plan.rank_logs, self.patrol.host, self.console.shown, self.console.note, first_rank=first
        )
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        before = {number: signal.signal(number, _leave_to_loop) for number in (*ASKING, signal.SIGWINCH)}
        wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        try:
            self.process = subprocess.Popen(
                self.plan.argv,
                executable=executable,
                env=self._environment(executable),
                stdin=subprocess.DEVNULL,
                stdout=self.console.out.writing,
                stderr=self.console.err.writing,
                # Ctrl-C goes to every process of the terminal's group: the ranks must hear of it from us alone.
                start_new_session=True,
            )
            for stream in self.console.streams:
                stream.started()
                self.selector.register(stream.reading, selectors.EVENT_READ, stream)
            self.selector.register(reading, selectors.EVENT_READ, "signals")
            self._watch(reading)
        finally:
            survivors = self._clear(watchdog, wakeup, before)
            os.close(reading)
            os.close(writing)
        self.process.wait()
        self.console.copy()
        verdict = self._judge()
        if survivors:
            _say(f"these processes could not be killed: {', '.join(map(str, sorted(survivors)))}")
        self.console.close()
        self._forget_ranks()
        return verdict

    def _clear(self, watchdog: Watchdog, wakeup: int, before: dict[signal.Signals, Any]) -> set[int]:
        """End all that was started and take back the signals; returns what could not be killed."""
        survivors = processes.kill_all(self.mark, spare=frozenset({os.getpid(), watchdog.pid}))
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        watchdog.dismiss()
        return survivors

    def _last_words(self) -> None:
        """Said by the watchdog, where this process was killed."""
        first = self.plan.first_rank
        places = self.patrol.places(range(first, first + self.plan.processes))
        self.account.last_words()
        if self.peers is not None:
            self.peers.orphaned(errors.BUG, places)

    def _forget_ranks(self) -> None:
        # Of ranks that were killed with the tree nobody was told: theirs are still open, and a restart opens more.
        for key in list(self.selector.get_map().values()):
            if isinstance(key.data, int):
                os.close(key.fd)
        self.selector.close()

    def _others(self) -> Others | None:
        """The machines whose ranks this one's wait for; None where there are none."""
        plan = self.plan
        if self.peers is None or plan.nodes == 1:
            return None
        head = (plan.head, plan.port) if plan.node else None
        return Others(plan.folder, self.peers.attempt.name, plan.world_size - plan.processes, head)

    def _environment(self, executable: str) -> dict[str, str]:
        # The ranks must be started by the Python that accelerate belongs to, wherever PATH points.
        path = os.pathsep.join([str(Path(executable).parent), os.environ.get("PATH", os.defpath)])
        return {
            **os.environ,
            "PATH": path,
            **dict(self.plan.environment),
            protocol.ATTEMPT_VARIABLE: self.name,
            heartbeat.FOLDER_VARIABLE: str(self.patrol.local),
        }

    def _watch(self, signals: int) -> None:
        """Wait until accelerate has ended, or the tree was killed."""
        while self.process.poll() is None and self.killed is None:
            for key, _ in self.selector.select(timeout=self._patience()):
                if key.data == "signals":
                    self._hear(os.read(signals, 64))
                elif isinstance(key.data, int):
                    self._bury(key.data, key.fd)
                else:
                    key.data.copy()
                    if not key.data.open:
                        self.selector.unregister(key.fd)
            self._look()
            self.echo.look()
            if self.deadline is None and (hang := self.patrol.look(self.ranks, _say)) is not None:
                self._end_hang(hang)
            if self.deadline is None and self.peers is not None and self.peers.failed():
                self._give(AFTER_DEATH_SECONDS)
            if self.deadline is not None and time.monotonic() > self.deadline:
                self.killed = "deadline"

    def _patience(self) -> float:
        # Ranks are looked for often until all are found; after that the kernel tells of each end by itself.
        return LOOK_SECONDS if len(self.ranks) < self.plan.processes else 0.5

    def _look(self) -> None:
        if len(self.ranks) >= self.plan.processes:
            return
        target = self.plan.target[1:] if self.plan.target[0] == "-m" else self.plan.target
        for rank, pid in processes.ranks(self.process.pid, target).items():
            if rank in self.ranks:
                continue
            with suppress(ProcessLookupError):
                self.selector.register(os.pidfd_open(pid), selectors.EVENT_READ, rank)
                self.ranks[rank] = pid

    def _end_hang(self, hang: Hang) -> None:
        """Keep the stacks of all ranks, then end them."""
        self.hang = told_apart(hang, self.patrol.sights(self.ranks), self.patrol.dump(self.ranks))
        self.killed = "hang"

    def _bury(self, rank: int, descriptor: int) -> None:
        """A rank has ended: remember how, and how long the others may go on."""
        code = processes.ended(self.ranks[rank])
        self.deaths.append(Death(rank, code, protocol.now()))
        self.selector.unregister(descriptor)
        os.close(descriptor)
        if code == 0 and rank > 0 and self.plan.verb == "evaluate":
            return  # Rank 0 judges all answers after the others have left, however long that takes.
        if code in (0, errors.PREEMPTED):
            wait = self.after_exit_seconds if code == 0 else float(GRACE_SECONDS)
        else:
            wait = AFTER_DEATH_SECONDS
            self.console.mute()
            self.echo.muted = True
        self._give(wait)

    def _give(self, seconds: float) -> None:
        """Let what still runs go on for so long and no longer."""
        deadline = time.monotonic() + seconds
        self.deadline = deadline if self.deadline is None else min(self.deadline, deadline)

    def _hear(self, numbers: bytes) -> None:
        """Act on the signals that came."""
        for number in numbers:
            if number == signal.SIGWINCH:
                for stream in self.console.streams:
                    stream.resize()
            elif number == signal.SIGINT and self.asked:
                self.killed = "user"
            elif number in ASKING and not self.asked:
                self._ask(signal.Signals(number))

    def _ask(self, received: signal.Signals) -> None:
        """Ask every rank to stop at its next step border and save."""
        self.asked = received.name
        again = "; Ctrl-C again kills at once" if received == signal.SIGINT else ""
        training = self.plan.verb == "train"
        what = "stop at the next step border and save" if training else "stop; answers drawn so far are kept"
        _say(f"{received.name}: the ranks {what}{again}")
        self._look()
        if not self.ranks:
            self.killed = "too early to save"
        for pid in self.ranks.values():
            # One signal whatever came: SIGINT would raise KeyboardInterrupt in a rank that is still importing.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _judge(self) -> Verdict:
        folder, now = self.plan.folder, protocol.now()
        seen = {death.rank for death in self.deaths}
        report = self.console.err.tail.decode(errors="replace")
        reported = reported_deaths(report, now)
        unseen = [death for death in reported if death.rank not in seen]
        known = {death.rank: death.code for death in reported}
        deaths = [
            Death(death.rank, known.get(death.rank) if death.code is None else death.code, death.seconds)
            for death in self.deaths
        ]
        first = self.plan.first_rank
        evidence = Evidence(
            verb=self.plan.verb,
            processes=self.plan.processes,
            outcome=protocol.read_outcome(folder) if self.plan.verb == "train" else None,
            results=results_since(folder, self.started),
            crashes=tuple(protocol.read_crashes(folder) + protocol.read_crashes(self.patrol.local)),
            deaths=tuple(deaths + unseen),
            launcher_code=self.process.returncode,
            last_step=last_step(folder / protocol.METRICS),
            asked_to_stop=self.asked is not None,
            killed=self.killed,
            hang=self.hang,
            places=self.patrol.places(range(first, first + self.plan.processes)),
        )
        verdict = decide(evidence)
        if self.peers is not None:
            part = self.account.attempt(verdict, self.asked)
            # This frees the room that was held back, which on a full disk the report needs.
            self.account.keep()
            return self.peers.tell(evidence, verdict, part)
        verdict = self.account.close(verdict, self.asked)
        # Rank 0 has told of a good end by itself.
        if verdict.exit_code != errors.DONE and not self.console.shown(verdict.gist or verdict.sentence):
            _say(verdict.sentence)
        if verdict.exit_code in (errors.BUG, errors.DO_NOT_REQUEUE):
            _say(f"logs: {self.account.logs}")
        return verdict


def unwritable(plan: LaunchPlan, error: OSError) -> WishError:
    """The refusal of a run folder that takes no files."""
    return WishError(
        f"the run folder {plan.folder} cannot be written: {error.strerror}",
        "set `output` to a folder you may write to, with room",
    )


def forget_last_attempt(plan: LaunchPlan) -> None:
    """Remove what an earlier attempt left to be judged by."""
    if plan.verb == "train":
        protocol.clear_attempt(plan.folder)
        return
    # An evaluation leaves the outcome of the training it judges where it is.
    for file in (plan.folder / protocol.CRASH).glob("rank-*.json"):
        file.unlink()


def _leave_to_loop(number: int, frame: FrameType | None) -> Any:
    """Signals are read from the wake-up pipe, in the loop, where nothing is half done."""


def _accelerate(name: str) -> str:
    beside = Path(sys.executable).parent
    found = shutil.which(name, path=os.pathsep.join([str(beside), os.environ.get("PATH", os.defpath)]))
    if found is None:
        raise PreflightError(f"{name} is not installed beside {sys.executable}", "pip install accelerate")
    return found


def _say(text: str) -> None:
    print(errors.spoken(text), file=sys.stderr, flush=True)
