"""SLURM: the lead is the batch step, and one `srun` starts an agent on each machine of the job."""

from __future__ import annotations

import os
import re
import shlex

from engine.errors import PreflightError
from launch.backends.submitted import State, Submitted, ask, demand
from launch.cluster import Slurm
from launch.lead import Start
from launch.submission import File, Submission, inspection

SCRIPT = "batch.sh"
# What any program needs; everything else stays where the run is submitted.
PLAIN = "PATH,HOME,USER,LANG,LD_LIBRARY_PATH"
GRANT_SECONDS = 30
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SUSPENDED")


def render(submission: Submission) -> tuple[File, ...]:
    """The batch script. No number of a node or rank is in it: each agent asks SLURM who it is."""
    place = submission.place
    assert isinstance(place, Slurm)
    gres = place.gres or (f"gpu:{place.gpus_per_node}" if place.gpus_per_node else None)
    options = {
        "job-name": submission.name,
        "nodes": str(place.nodes),
        "ntasks-per-node": "1",
        "partition": place.partition,
        "account": place.account,
        "qos": place.qos,
        "time": place.time,
        "gres": gres,
        "cpus-per-task": str(place.cpus_per_node) if place.cpus_per_node else None,
        "chdir": str(submission.directory),
        "output": str(submission.there / "slurm-%j.log"),
        "open-mode": "append",
        "export": PLAIN,
        "signal": f"B:USR1@{place.grace_seconds}",
    }
    lines = [f"#SBATCH --{name}={shlex.quote(value)}" for name, value in options.items() if value is not None]
    lines += ["#SBATCH --requeue" if place.requeue else "#SBATCH --no-requeue"]
    lines += [] if place.cpus_per_node else ["#SBATCH --exclusive"]
    lines += place.lines
    text = "\n".join(["#!/bin/bash", *lines, f"exec {shlex.join(submission.lead)}"])
    return (File(SCRIPT, text + "\n"),)


def command(submission: Submission) -> tuple[str, ...]:
    """The line that queues the script."""
    return ("sbatch", "--parsable", str(submission.here / SCRIPT))


def submit(submission: Submission) -> str:
    """Queue the script; returns the job's number, with the cluster's name where there is one."""
    return demand(command(submission))


def starts(submission: Submission, attempt: str) -> tuple[Start, ...]:
    """One command for all machines; called inside the job."""
    place = submission.place
    assert isinstance(place, Slurm)
    words = (*_step(place), *submission.agent("--head", head(), "--attempt", attempt))
    return (Start(words, tuple(range(place.nodes)), held=False),)


def _step(place: Slurm) -> tuple[str, ...]:
    """Words that run what follows them once on each machine of the job they are said in."""
    words = ["srun", f"--nodes={place.nodes}", "--ntasks-per-node=1", "--export=ALL", "--kill-on-bad-exit=0"]
    words += [f"--cpus-per-task={place.cpus_per_node}"] if place.cpus_per_node else []
    return (*words, "--cpu-bind=none", "--wait=0")


def inspections_inside(place: Slurm) -> tuple[Start, ...]:
    """One command for all machines of the job this is called in."""
    words = (*_step(place), "/bin/sh", "-c", f"exec {inspection(place.python, None)}")
    return (Start(words, tuple(range(place.nodes)), held=True),)


def inspections(place: Slurm, directory: str) -> tuple[Start, ...]:
    """One command for all machines, which hands each question to every one; given up if none are granted soon."""
    options = {
        "partition": place.partition,
        "account": place.account,
        "qos": place.qos,
        "gres": place.gres or (f"gpu:{place.gpus_per_node}" if place.gpus_per_node else None),
        "cpus-per-task": str(place.cpus_per_node) if place.cpus_per_node else None,
        "chdir": directory,
        "export": PLAIN,
        "immediate": str(GRANT_SECONDS),
    }
    words = ["srun", "--job-name=temper-check", f"--nodes={place.nodes}", "--ntasks-per-node=1", "--time=5"]
    words += [f"--{name}={value}" for name, value in options.items() if value is not None]
    words += [] if place.cpus_per_node else ["--exclusive"]
    words += [word for line in place.lines for word in shlex.split(line.removeprefix("#SBATCH "))]
    words += [
        "--kill-on-bad-exit=0",
        "--cpu-bind=none",
        "/bin/sh",
        "-c",
        f"exec {inspection(place.python, None)}",
    ]
    return (Start(tuple(words), tuple(range(place.nodes)), held=True),)


def machines() -> tuple[str, ...]:
    """The names of the machines of the job this is called in, in the order of their numbers."""
    hosts = demand(("scontrol", "show", "hostnames", os.environ.get("SLURM_JOB_NODELIST", ""))).split()
    if not hosts:
        raise PreflightError("SLURM_JOB_NODELIST names no machine", "the lead runs in a job's batch script")
    return tuple(hosts)


def head() -> str:
    """The first machine's address, as the controller knows it; called inside a job."""
    first = machines()[0]
    found = re.search(r"NodeAddr=(\S+)", demand(("scontrol", "show", "node", first)))
    return found[1] if found else first


def attempt_name() -> str:
    """The job's number and how often it was queued again."""
    return f"{os.environ.get('SLURM_JOB_ID', '0')}-{os.environ.get('SLURM_RESTART_COUNT', '0')}"


def queue_again() -> None:
    """Put the job this runs in back into the queue."""
    demand(("scontrol", "requeue", os.environ["SLURM_JOB_ID"]))


def status(submitted: Submitted) -> State:
    """What `squeue` says."""
    number, cluster = _job(submitted)
    done = ask(("squeue", "--noheader", "--states=all", *cluster, f"--jobs={number}", "--format=%T %R"))
    word, _, detail = done.stdout.strip().partition(" ")
    if done.returncode and "Invalid job id" not in done.stderr:
        return State("unknown", " ".join(done.stderr.split()))
    if word in WAITING:
        return State("queued", f"job {submitted.job} {word.lower()} {detail}".strip())
    if word in ("RUNNING", "COMPLETING", "STOPPED"):
        return State("running", f"job {submitted.job} on {detail}")
    return State("ended", f"job {submitted.job} {word.lower()}".strip())


def cancel(submitted: Submitted, *, now: bool) -> str:
    """Signal the lead, or take the job away from the queue or the machines."""
    number, cluster = _job(submitted)
    state = status(submitted)
    if state.word == "ended":
        return "it has ended already"
    if now or state.word == "queued":
        demand(("scancel", *cluster, number))
        return f"job {submitted.job} is taken out"
    demand(("scancel", *cluster, "--batch", "--signal=TERM", number))
    return "it stops at the next step border and saves"


def log_command(submitted: Submitted, node: int, *, follow: bool) -> tuple[str, ...] | None:
    """The run folder has all."""
    return None


def _job(submitted: Submitted) -> tuple[str, tuple[str, ...]]:
    number, _, cluster = submitted.job.partition(";")
    return number, ((f"--clusters={cluster}",) if cluster else ())
