"""How fast and how rightly programs are judged, and at what cost: Temper's sandbox and the field's.

Run: TEMPER_DATA=FOLDER python benchmarks/sandbox.py --peers PEERS [--workloads ...] [--executors ...]
[--rounds N] [--limit N] [--write]. The data folder holds humaneval/HumanEval.jsonl.gz and
codegen16b/samples.jsonl.gz (see score_codegen16b.py). Whoever runs this fetches what others wrote:

    python -m venv PEERS/venv
    PEERS/venv/bin/pip install numpy psutil evaluate
    PEERS/venv/bin/pip install --no-deps evalplus
    git clone https://github.com/openai/human-eval PEERS/human-eval
    git clone https://github.com/huggingface/evaluate PEERS/evaluate
    apt-get install bubblewrap

What is absent is skipped with a word. Most of these judges isolate nothing: programs that a model wrote
(codegen) run in them with your rights, so use a machine that may break. Prints a table a workload; --write
also puts them in docs/results/sandbox.md, in place of what that page had of the same workloads.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path

from executors.bench import started
from executors.child import EXECUTORS
from executors.machine import ROOT, command, facts, prose
from executors.record import Record, measure, tally, wanted, weigh
from executors.task import Unavailable
from executors.workload import WORKLOADS, Workload

WORKERS = 2
PAGE = ROOT / "docs" / "results" / "sandbox.md"
LABELS = {
    "temper": "Temper",
    "temper-fresh": "Temper, fresh",
    "fork": "bare fork",
    "human-eval": "human-eval",
    "code_eval": "code_eval",
    "evalplus": "EvalPlus",
    "bwrap": "bubblewrap",
    "python": "python",
}
YARDSTICKS = ("fork", "human-eval", "evalplus")
ABOUT = """\
- **Temper**: `Pool`; **fresh**: `Pool(mode="fresh")`, namespaces of its own for each program.
- **bare fork**: fork from a process that has imported what programs often do, exec of the text, wait.
- **human-eval**: openai/human-eval's `check_correctness` from threads.
- **code_eval**: huggingface/evaluate's metric, one `compute` for all programs.
- **EvalPlus**: `untrusted_check` in a process pool; the function it calls runs the test the others run.
- **bubblewrap**: `bwrap --unshare-all --ro-bind / / --tmpfs /tmp --die-with-parent --new-session --clearenv`
  and `python -I -S -c`; **python**: `python -I -S` and a file for each program. No -S for numpy's programs.

The limit is CPU time for Temper (and three times as much wall time), wall time for all others, each by its
own means. Each judge runs in a process of its own, started by exec; judges take turns, a round each.
Figures are medians of the rounds, ratios are of programs/s within a round. CPU is user and system time of
all processes, those that ended included. Latency is from hand-over to verdict with both workers busy;
Temper's is taken in a pass of its own over at most 500 programs. Peak memory is the largest sum over the
judge's processes, its own Python and the programs' text included, looked at every 20 ms over at most 200
programs of the first round, in a pass of its own. Judges without a limit on memory were given 4 GiB of
address space. Programs could import the standard library and what the judge itself had loaded."""


def compare(workload: Workload, names: list[str], rounds: int) -> tuple[dict[str, Record], list[str]]:
    """Every judge once a round, in turn, so that other work falls on all; and who could not, and why."""
    records = {name: Record() for name in names}
    absent: list[str] = []
    for number in range(rounds):
        for name in list(records):
            try:
                play(workload, name, records[name])
            except Unavailable as error:
                del records[name]
                absent.append(f"{LABELS[name]}: skipped, {error}")
                print(f"{workload.name}: {absent[-1]}", file=sys.stderr, flush=True)
                continue
            rate = records[name].rounds[-1].rate
            print(f"{workload.name}, round {number + 1}: {name} {rate:.1f}/s", file=sys.stderr, flush=True)
    return records, absent


def play(workload: Workload, name: str, record: Record) -> None:
    """One judge's turn; memory is weighed in the first."""
    count = len(workload.setting.order)
    with started(name, workload.setting) as bench:
        found = measure(bench, count)
        record.peak = record.peak or weigh(bench, count)
    record.rounds.append(found)
    record.note = f"{LABELS[name]}: {', '.join(filter(None, [bench.note, f'Python {bench.python}']))}"


def row(workload: Workload, name: str, records: dict[str, Record], right: list[str | None]) -> list[str]:
    record = records[name]
    rates = [one.rate for one in record.rounds]
    counted = tally(workload.setting, record, right)
    correct = counted.known - counted.false_failures - counted.false_passes
    cells = [LABELS[name], _figure(record.median("rate")), f"{_figure(min(rates))} to {_figure(max(rates))}"]
    cells += [f"{record.ratio(records[other]):.2f}" if other in records else "" for other in YARDSTICKS]
    cells += [_figure(record.median(figure)) for figure in ("cpu_ms", "p50_ms", "p99_ms")]
    cells += [f"{record.peak.mib:,.0f}" if record.peak else "", f"{correct:,} of {counted.known:,}"]
    cells += [f"{counted.false_failures:,}", f"{counted.false_passes:,}"]
    return cells + [f"{counted.loops_named:,} of {counted.loops:,}"] * bool(counted.loops)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def table(workload: Workload, records: dict[str, Record]) -> str:
    """A row a judge; verdicts are counted over all rounds."""
    right = wanted(workload.setting, list(records.values()))
    heads = ["judge", "programs/s", "rounds", *(f"to {LABELS[name]}" for name in YARDSTICKS)]
    heads += ["CPU ms", "p50 ms", "p99 ms", "peak MiB", "right verdicts", "false failures", "false passes"]
    rows = [row(workload, name, records, right) for name in records]
    heads += ["loops called a timeout"] * (len(rows[0]) - len(heads))
    rows = [heads, ["---"] * len(heads), *rows]
    return (
        "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
        .replace("| --- ", "|---")
        .replace("--- |", "---|")
    )


def section(
    workload: Workload, records: dict[str, Record], absent: list[str], wish: argparse.Namespace
) -> str:
    """A workload's heading, how it was measured, its table, who judged, and who is missing."""
    count = len(workload.setting.order)
    summed = dict.fromkeys(record.peak.summed for record in records.values() if record.peak)
    how = (
        f"{workload.about} {count:,} programs a round, {wish.rounds} rounds, {WORKERS} workers. `{command()}`, "
        f"{facts()}; load average at the end {os.getloadavg()[0]:.1f}. Memory is summed as {' or '.join(summed)}."
    )
    notes = dict.fromkeys(record.note for record in records.values())
    text = f"## {workload.name}\n\n{prose(how)}\n"
    if records:
        text += f"\n{table(workload, records)}\n\n" + "".join(f"- {note}\n" for note in notes)
    return text + "".join(f"\n{line}.\n" for line in absent)


def page(sections: dict[str, str]) -> str:
    """The whole page: what was measured now, and of the other workloads what it had."""
    if PAGE.exists():
        for part in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
            sections.setdefault(part.partition("\n")[0], f"## {part}")
    ordered = [sections[name].rstrip() for name in WORKLOADS if name in sections]
    return "\n\n".join(["# Judges of programs side by side", ABOUT, *ordered]) + "\n"


def wishes() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure judges of programs side by side.")
    parser.add_argument("--peers", default="", help="folder with what others wrote, see the top of this file")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--executors", nargs="+", choices=EXECUTORS, default=list(EXECUTORS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, help="at most so many programs a workload, spread evenly")
    parser.add_argument("--write", action="store_true")
    return parser.parse_args()


def prepare(name: str, wish: argparse.Namespace) -> Workload:
    """The workload as it is wished for."""
    workload = WORKLOADS[name](Path(os.environ["TEMPER_DATA"])).at_most(wish.limit)
    peers = str(Path(wish.peers).resolve()) if wish.peers else ""
    setting = dataclasses.replace(workload.setting, workers=WORKERS, peers=peers)
    return dataclasses.replace(workload, setting=setting)


def main() -> None:
    """Print the tables, and write them where asked."""
    wish = wishes()
    if "TEMPER_DATA" not in os.environ:
        sys.exit("set TEMPER_DATA to the folder with humaneval/ and codegen16b/")
    for name in wish.workloads:
        workload = prepare(name, wish)
        records, absent = compare(workload, wish.executors, wish.rounds)
        text = section(workload, records, absent, wish)
        print(text, flush=True)
        if wish.write:
            PAGE.write_text(page({name: text}), encoding="utf-8")


if __name__ == "__main__":
    main()
