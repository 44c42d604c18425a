"""Running strangers' programs: the one door is `run`, or `Pool` for many; verdicts are decided outside the program."""

from .foreign.languages import LANGUAGES
from .judge import NOT_PLAIN
from .pool import Pool, Trial
from .probe import Probe, probe
from .run import run
from .verdict import LEVELS, MODES, VERDICTS, Call, File, Limits, Program, Verdict
from .wishes import check_program

__all__ = [
    "LANGUAGES",
    "LEVELS",
    "MODES",
    "NOT_PLAIN",
    "VERDICTS",
    "Call",
    "File",
    "Limits",
    "Pool",
    "Probe",
    "Program",
    "Trial",
    "Verdict",
    "check_program",
    "probe",
    "run",
]
