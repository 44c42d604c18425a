"""Learning from running it: rewards for policy-gradient trainers from programs that were executed."""

from .reward import ExecutionReward

__all__ = ["ExecutionReward"]
