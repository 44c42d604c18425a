"""Running strangers' programs: the one door is `run`, or `Pool` for many; verdicts are decided outside the program."""

from .pool import Pool
from .probe import Probe, probe
from .run import run
from .verdict import LEVELS, VERDICTS, Call, Limits, Program, Verdict

__all__ = ["LEVELS", "VERDICTS", "Call", "Limits", "Pool", "Probe", "Program", "Verdict", "probe", "run"]
