"""Running strangers' programs: the one door is `run`, or `Pool` for many; verdicts are decided outside the program."""

from .pool import Pool
from .probe import Probe, probe
from .run import run
from .verdict import LEVELS, MODES, VERDICTS, Call, File, Limits, Program, Verdict
from .wishes import check_program

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
    "check_program",
    "probe",
    "run",
]
