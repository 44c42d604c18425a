"""Judgement: benchmarks, evaluation over ranks, scoring of given samples, and the report."""

from __future__ import annotations

from engine.evaluate.benchmarks import BENCHMARKS, find, fingerprint, texts
from engine.evaluate.code_eval import CODE_EVAL
from engine.evaluate.job import Settings
from engine.evaluate.judge import Court
from engine.evaluate.run import evaluate
from engine.evaluate.summary import Summary
from engine.evaluate.task import Task

__all__ = [
    "BENCHMARKS",
    "CODE_EVAL",
    "Court",
    "Settings",
    "Summary",
    "Task",
    "evaluate",
    "find",
    "fingerprint",
    "texts",
]
