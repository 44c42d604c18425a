"""The lead as a job of SLURM: looks at the machines it was given, runs, and queues the job again where it should."""

from __future__ import annotations

import json
from dataclasses import replace

import click

from engine import errors, protocol
from engine.config import load
from launch import reports, submission
from launch.backends import slurm
from launch.cluster import Slurm
from launch.lead import Lead
from launch.submission import Submission
from launch.survey import told, wanted
from launch.verdict import Verdict


def led(made: Submission) -> Verdict:
    """Run one start of a job to its end."""
    lead = Lead(made, slurm.attempt_name(), slurm.machines())
    with lead.listening():
        verdict = _refused(lead) or lead.run(slurm.starts(made, lead.attempt.name))
    assert isinstance(made.place, Slurm)
    # Whoever cancels sends SIGTERM; SIGUSR1 comes from SLURM, shortly before the time is over.
    out_of_time = verdict.exit_code == errors.PREEMPTED and lead.out_of_time
    # SLURM would do so itself, had this not noticed first.
    felled = verdict.exit_code == errors.BUG and verdict.lost and lead.asked is None
    if made.place.requeue and (out_of_time or felled):
        click.echo(errors.spoken("the job is queued again"), err=True)
        slurm.queue_again()
    return verdict


def _refused(lead: Lead) -> Verdict | None:
    """Why no ranks are started on these machines; None where they can be."""
    made = lead.submission
    if made.unchecked:
        return None
    assert isinstance(made.place, Slurm)
    asked = wanted(load(made.there / protocol.RUN).run, made.place, made.launch.verb)
    private = made.there / submission.ENVIRONMENT
    if private.is_file():
        asked = replace(asked, environment=json.loads(private.read_text(encoding="utf-8")))
    found = told(asked, made.place, inside=True)
    if lead.heard:
        lead.asked = lead.heard[0]
        verdict = Verdict(errors.PREEMPTED, "Stopped as asked before the ranks were started.")
    elif found:
        more = f" ({len(found) - 1} more above)" if len(found) > 1 else ""
        verdict = Verdict(errors.PREFLIGHT_FAILED, f"No ranks were started. {found[0]}{more}.")
    else:
        return None
    return reports.conclude(lead.attempt, verdict, made.launch.logs)
