"""The person's door: `temper VERB run.yaml`. Every verb is loaded when it is called, so that help answers at once."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from typing import Any, NoReturn

import click

VERSION = "0.1.0"

# Verb: (what it does, where it lives). An empty place hands the words on to `python -m engine`.
VERBS = {
    "train": ("Fine-tune a model: print the `accelerate launch` line, then run it.", "launch.verbs:train"),
    "plan": (
        "Tell what a run would do and need, and whether it fits, without starting it.",
        "launch.plan:plan",
    ),
    "verify": (
        "Train a few steps in every way that should not matter, and compare.",
        "launch.verify:verify",
    ),
    "check": (
        "Look at every node of a cluster before a run, and tell all that is amiss.",
        "launch.check:check",
    ),
    "submit": ("Hand a run to a cluster: SLURM, Kubernetes, or hosts by ssh.", "launch.submit:submit"),
    "status": ("Tell where a submitted run is, and how it ended.", "launch.submit:status"),
    "logs": ("Print what a rank of a run wrote.", "launch.submit:logs"),
    "cancel": ("Stop a submitted run at its next step border.", "launch.submit:cancel"),
    "tune": ("Search over config keys for the best value of a metric; resumable.", "launch.tune:tune"),
    "lr": (
        "Learning-rate range test: the loss while the rate rises, and where it falls fastest.",
        "launch.lr:lr",
    ),
    "evaluate": ("Sample a benchmark's tasks, run the answers, report pass@k.", "launch.verbs:evaluate"),
    "score": ("Score samples that exist already, in the field's JSONL format.", ""),
    "compare": ("Compare two evaluations task by task: what differs, where, and whether by chance.", ""),
    "rescore": (
        "Judge an evaluation's answers anew, without their model, and show old figures against new.",
        "",
    ),
    "export": ("Put a run's adapter into its base, and measure before it is called good.", ""),
    "report": ("Write one self-contained HTML page about runs and evaluations.", ""),
    "card": ("Write the model card of a run from its facts and results.", ""),
    "benchmark": ("List benchmarks, show and export their tasks.", ""),
    "sandbox": ("Run programs in the sandbox, or see what this machine grants and speaks.", ""),
    "data": ("Look at the rows, tokens and masks a run would train on.", ""),
    "watch": ("Show a run while it goes on: loss, speed, and what each rank does.", "launch.watch:watch"),
    "explain": (
        "Tell what happened in a run, attempt by attempt, and where the time went.",
        "launch.explain:explain",
    ),
    "config": ("Show, check and document run files.", "launch.config:config"),
    "demo": (
        "The whole path on this machine's CPU: fine-tune the embedded model and prove the gain.",
        "launch.demo:demo",
    ),
    "version": ("Print the versions of Temper and what it stands on.", "launch.verbs:version"),
}
# What places run on their nodes; not shown to people.
INNER = {
    "agent": ("", "launch.node:agent"),
    "lead": ("", "launch.submit:lead"),
    "inspect": ("", "launch.inspection:inspect"),
}


class Verbs(click.Group):
    """A group that knows its verbs' names and help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order a person meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One verb, imported now; None for a name that is none."""
        if cmd_name not in VERBS | INNER:
            return None
        help_text, place = (VERBS | INNER)[cmd_name]
        if not place:
            return _handed_on(cmd_name, help_text)
        module, _, name = place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs in `--help`, from the table alone."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, help_text) for name, (help_text, _) in VERBS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """As click does, naming the nearest verb for an unknown one."""
        name = args[0]
        if name in VERBS | INNER:
            return super().resolve_command(ctx, args)
        near = difflib.get_close_matches(name, VERBS, n=1, cutoff=0.5)
        hint = f"did you mean `temper {near[0]}`?" if near else f"known: {', '.join(VERBS)}"
        ctx.fail(f"there is no verb {name!r}: {hint}")


def _handed_on(verb: str, help_text: str) -> click.Command:
    """A verb whose work is the engine's: this process becomes `python -m engine VERB ...`."""

    @click.command(
        verb,
        help=help_text,
        add_help_option=False,
        context_settings={
            "ignore_unknown_options": True,
            "allow_extra_args": True,
            "allow_interspersed_args": False,
        },
    )
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def command(words: tuple[str, ...]) -> None:
        become_engine(verb, *words)

    return command


def become_engine(*words: str) -> NoReturn:
    """Replace this process by `python -m engine WORDS`: one process, one exit code, nothing in between."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "engine", *words])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="temper")
def temper() -> None:
    """Fine-tune code models on clusters, and prove the result by running what they write.

    Start with `temper demo`, or `temper train configs/sft/qwen2.5-coder-0.5b.yaml --dry-run`.
    """


def main() -> None:
    """Run `temper`; a user's mistake is one sentence and its exit code, never a stack trace."""
    from engine.errors import WRONG_WISH, TemperError, misused, spoken

    try:
        temper(prog_name="temper", standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        print(misused(error), file=sys.stderr)
        sys.exit(WRONG_WISH)
    except TemperError as error:
        print(spoken(error), file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
