"""The loop: one step after another, exact, resumable, and the same under every strategy."""

from engine.train.assemble import Evaluation, Job, assemble
from engine.train.engine import Engine, Update
from engine.train.loop import train, validate
from engine.train.optim import build_optimizer, learning_rate
from engine.train.step import StepResult, take_step

__all__ = [
    "Engine",
    "Evaluation",
    "Job",
    "StepResult",
    "Update",
    "assemble",
    "build_optimizer",
    "learning_rate",
    "take_step",
    "train",
    "validate",
]
