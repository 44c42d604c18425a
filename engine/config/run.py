"""A Run: the whole of a user's wish in one typed, frozen value."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from engine.config.sections import (
    Adapter,
    Checkpoint,
    Data,
    Evaluate,
    Model,
    Parallel,
    Place,
    Sandbox,
    Section,
    Track,
)
from engine.config.train import Train


class Run(Section):
    """One YAML file: what to train, on what, how, where the result goes and how it is proved."""

    output: Place
    """Run folder; relative paths are relative to the working directory."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Every random thing derives from this, a purpose, and a rank or sample id."""
    model: Model
    """Which weights to start from."""
    adapter: Adapter = Adapter()
    """What is trained."""
    data: Data | None = None
    """What is learnt from; a run that only evaluates needs none."""
    train: Train = Train()
    """The loop."""
    parallel: Parallel = Parallel()
    """Ranks and precision."""
    evaluate: Evaluate = Evaluate()
    """Judgement by execution."""
    sandbox: Sandbox = Sandbox()
    """Limits for programs the model wrote."""
    track: Track = Track()
    """Progress reports."""
    checkpoint: Checkpoint = Checkpoint()
    """What is kept."""

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.output)
