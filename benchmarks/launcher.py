"""What the launcher costs and how soon it acts: plan, check, a hang named, a preemption survived, steps lost.

Run: python benchmarks/launcher.py [--write], as root, with the packages of docs/how-to/cluster.md. Two network
namespaces are two hosts of one rank each, and a real SLURM runs over them. Prints a table; --write also puts it in
docs/results/launcher.md. Exits with 1 where a bar is missed. About five minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from executors.machine import ROOT, command, facts, prose

sys.path.insert(1, str(ROOT))

from tests.cluster.machines import TEMPER, Slurm, Wish, running_slurm, two_hosts, until
from tests.cluster.training import Training, held, rank_process

RECIPE = "configs/qlora/qwen2.5-coder-7b.yaml"
MODEL = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
}
PLANS, CHECKS = 20, 3
EVERY = 10
PACKAGES = ("torch", "accelerate", "deepspeed")
PLAN_BAR, CHECK_BAR = 0.5, 30.0
# torch's ProcessGroupNCCL.hpp (kProcessGroupNCCLDefaultTimeout) and distributed/constants.py; torchrun sets no other.
TORCH_LIMITS = "10 minutes (NCCL), 30 (gloo)"
# The same process as `temper plan`, which says at its end whether torch came in.
TORCH = "import sys, atexit; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); "
PLAN = "from launch.cli import main; sys.argv[:] = ['temper', 'plan', *sys.argv[1:]]; main()"


@dataclass(frozen=True)
class Row:
    """A figure, beside the bar it has to keep or what it stands against."""

    what: str
    figure: str
    beside: str
    kept: bool = True


def timed(words: list[str]) -> tuple[float, str]:
    """Seconds of a whole process that must end well, and what it said."""
    began = time.perf_counter()
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{words}: {done.stderr}")
    return seconds, done.stderr


def spread(seconds: list[float], digits: int = 2) -> str:
    """Median and most."""
    return f"median {statistics.median(seconds):.{digits}f} s, most {max(seconds):.{digits}f} s of {len(seconds)}"


def plan(folder: Path) -> Row:
    """A plan of a recipe, from the start of Python to its end; its model's config.json is a file, as in a cache."""
    (folder / "config.json").write_text(json.dumps(MODEL))
    asked = [RECIPE, "--on", "1xh100", "--model-config", str(folder / "config.json")]
    timed([*TEMPER, "plan", *asked])  # the first reads everything from the disk
    seconds = [timed([*TEMPER, "plan", *asked])[0] for _ in range(PLANS)]
    _, said = timed([sys.executable, "-c", TORCH + PLAN, *asked])
    torch = said.split()[-1] == "True"
    kept = statistics.median(seconds) < PLAN_BAR and not torch
    figure = f"{spread(seconds)}; torch imported: {'yes' if torch else 'no'}"
    return Row(f"`temper plan {RECIPE} --on 1xh100`", figure, f"bar: {PLAN_BAR} s, without torch", kept)


def check(wish: Wish) -> Row:
    """A look at two nodes, rehearsal included."""
    run, place = str(wish.run("checked")), str(wish.cluster("hosts"))
    seconds = [timed([*TEMPER, "check", run, "--on", place])[0] for _ in range(CHECKS)]
    kept = max(seconds) < CHECK_BAR
    return Row(
        "`temper check` of two nodes, with a rendezvous", spread(seconds, 1), f"bar: {CHECK_BAR:.0f} s", kept
    )


def hang(wish: Wish, name: str, how: str) -> Row:
    """From the moment a rank of the second host hangs to its name on the first one's console."""
    run = Training(wish, name, "--set", "parallel.hang_seconds=8")
    step = run.step_seconds()
    pid, began = rank_process(run.folder, 1), time.monotonic()
    if name == "stopped":
        os.kill(pid, signal.SIGSTOP)
        took = run.told(r"Rank 1 on \S+ has been silent", began)
        run.end()
    else:
        with held(pid):
            took = run.told(r"Rank 1 on \S+ has been silent", began)
            run.end()
    bar = 3 * step + 5
    return Row(
        f"a rank of the second host {how}: named on the first after",
        f"{took:.1f} s",
        f"bar: three steps ({step:.2f} s each) and 5 s: {bar:.1f} s; torch's own limit of a collective: {TORCH_LIMITS}",
        took < bar,
    )


def records(folder: Path) -> list[dict[str, Any]]:
    """The steps that were logged."""
    lines = (folder / "metrics.jsonl").read_text().splitlines() if (folder / "metrics.jsonl").exists() else []
    return [record for record in map(json.loads, lines) if "loss" in record]


def explained(folder: Path) -> dict[str, Any]:
    """What `temper explain` adds up."""
    words = [*TEMPER, "explain", str(folder), "--json"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["time"]


def preemption(slurm: Slurm, wish: Wish) -> list[Row]:
    """A job that SLURM asks to stop: saved, queued again, and at its next step."""
    place, folder = wish.cluster("slurm", nodes=2), wish.folder / "preempted"
    words = ["submit", str(wish.run("preempted")), "--on", str(place), "--set", "train.steps=60"]
    subprocess.run([*TEMPER, *words], cwd=ROOT, env=slurm.environment, check=True, capture_output=True)
    until(lambda: len(records(folder)) > 8, "steps", folder / "submissions" / "1", 200)
    job = json.loads((folder / "submission.json").read_text())["job"]
    signalled = time.time()
    slurm.ask("scancel", "--batch", "--signal=USR1", str(job))
    outcome = folder / "outcome.json"
    until(lambda: outcome.exists() and "preempted" in outcome.read_text(), "its save", seconds=60)
    saved, step = outcome.stat().st_mtime, json.loads(outcome.read_text())["step"]
    until(lambda: records(folder)[-1]["step"] > step, "the next step", folder / "submissions" / "1", 300)
    again = next(record["time"] for record in records(folder) if record["step"] > step)
    until(lambda: outcome.exists() and "finished" in outcome.read_text(), "the end", seconds=200)
    until(lambda: len((folder / "attempts.jsonl").read_text().splitlines()) == 2, "its account", seconds=60)
    second = json.loads((folder / "attempts.jsonl").read_text().splitlines()[-1])
    told = explained(folder)
    return [
        Row(
            "SIGUSR1 of SLURM to the first step after it was queued again",
            f"{again - signalled:.1f} s",
            f"of it {saved - signalled:.1f} s to the save, {second['started'] - saved:.1f} s until SLURM had started"
            f" it again and its machines were looked at, {again - second['started']:.1f} s to the step",
        ),
        lost("preempted (SIGUSR1)", told, 0),
    ]


def lost(fault: str, told: dict[str, Any], most: int) -> Row:
    """Steps that a fault cost, and the share of the time that went into steps that count."""
    steps = told["steps_lost"]
    return Row(
        f"{fault}: steps lost", str(steps), f"at most {most}; goodput {told['goodput']:.0%}", steps <= most
    )


def killed(folder: Path) -> Row:
    """A rank killed in mid-run, on this machine, with one restart."""
    wish = Wish(folder, [])
    run = wish.run("killed", processes=2, strategy="ddp", restarts=1)
    words = [*TEMPER, "train", str(run), "--set", "train.steps=60", "--set", f"checkpoint.every={EVERY}"]
    lead = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: len(records(folder / "killed")) > EVERY + EVERY // 2, "steps", seconds=200)
    os.kill(rank_process(folder / "killed", 1), signal.SIGKILL)
    if lead.wait(timeout=300):
        sys.exit("the killed run did not finish")
    return lost(f"SIGKILL of a rank, `checkpoint.every: {EVERY}`", explained(folder / "killed"), EVERY)


def measured() -> list[Row]:
    """All of it."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="temper-") as name, two_hosts() as hosts:
        folder = Path(name)
        wish = Wish(folder, hosts)
        works = (
            lambda: plan(folder),
            lambda: check(wish),
            lambda: hang(wish, "stopped", "stopped"),
            lambda: hang(wish, "behind", "falls behind"),
            lambda: killed(folder),
        )
        for work in works:
            rows.append(work())
            print(rows[-1], flush=True)
        (folder / "slurm").mkdir()
        with running_slurm(hosts, folder / "slurm") as slurm:
            rows += preemption(slurm, wish)
    return rows


def report(rows: list[Row]) -> str:
    """The page."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    lines = [
        "# The launcher: how soon",
        "",
        f"`{command()}`, {facts()}, {packages}, no GPU.",
        "",
        prose(
            "Two network namespaces of one machine are two hosts of one CPU rank each, over gloo, with the embedded "
            "model; SLURM is Debian's, with a node daemon in each namespace. Whole processes are timed, Python's start "
            "included."
        ),
        "",
        "| what | figure | beside it |",
        "|---|---|---|",
        *(f"| {row.what} | {row.figure}{'' if row.kept else ' (MISSED)'} | {row.beside} |" for row in rows),
        "",
        prose(
            "A stopped rank is ended as it is named; one that falls behind after `parallel.hang_seconds`. Who is "
            "blamed, and how soon on one machine, is in [faults](faults.md). Goodput is that of minutes-long toy runs, "
            "most of which is starting Python; it shows what `temper explain` adds up, not what a long run has."
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the page, and write it where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true")
    wish = parser.parse_args()
    rows = measured()
    text = report(rows)
    print(text)
    if wish.write:
        (ROOT / "docs" / "results" / "launcher.md").write_text(text, encoding="utf-8")
    if not all(row.kept for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
