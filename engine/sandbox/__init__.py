"""Running strangers' programs: the one door is `run`, or `Pool` for many; verdicts are decided outside the program."""

from .pool import Pool
from .probe import Probe, probe
from .run import run
from .verdict import LEVELS, MODES, VERDICTS, Call, File, Limits, Program, Verdict

__all__ = [
    "LEVELS",
    "MODES",
    "VERDICTS",
    "Call",
    "File",
    "Limits",
    "Pool",
    "Probe",
    "Program",
    "Verdict",
    "probe",
    "run",
]
