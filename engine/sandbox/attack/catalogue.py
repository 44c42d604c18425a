"""The whole hostile set, in the order it is tried; those that start compilers come last."""

from __future__ import annotations

from .borders import BORDERS
from .effort import EFFORT
from .entry import Attack
from .forgeries import FORGERIES
from .neighbours import NEIGHBOURS
from .outliving import OUTLIVING
from .pretences import PRETENCES
from .space import SPACE


def _place(entry: Attack) -> tuple[bool, int]:
    return entry.language != "python", entry.number


CATALOGUE = tuple(
    sorted((*SPACE, *EFFORT, *OUTLIVING, *NEIGHBOURS, *BORDERS, *FORGERIES, *PRETENCES), key=_place)
)
