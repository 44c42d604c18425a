"""Attacking the sandbox on purpose: a catalogue of hostile programs, and the drill that tries them on this machine."""

from .catalogue import CATALOGUE
from .classes import CATEGORIES, CLASSES
from .drill import Drill, Outcome
from .entry import Attack
from .table import Tally

__all__ = ["CATALOGUE", "CATEGORIES", "CLASSES", "Attack", "Drill", "Outcome", "Tally"]
