"""What rows are called: by their own id column where it is unique, by file and line otherwise; over all sources.

Rows are read once for it and not kept: eight bytes of each name are, which tell apart as well as the names do.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np

from engine.data import sources
from engine.data.order import key
from engine.data.sources import ID_FIELDS, Row, Stream


@dataclass(frozen=True, slots=True)
class Names:
    """How a source's rows are named.

    Attributes:
        column: whose values are the names; None: the places are.
        prefix: what stands before each, where an earlier source has one of the same names.
    """

    column: str | None
    prefix: str

    def of(self, row: Row) -> Row:
        """The row under its name."""
        own = row.id if self.column is None else str(row.fields[self.column])
        return Row(self.prefix + own, row.where, row.fields)


class Register:
    """The names of the sources so far, to keep those of the next one apart."""

    def __init__(self) -> None:
        self._taken = np.empty(0, dtype=np.uint64)

    def enter(self, stream: Stream, index: int) -> tuple[Names, Row]:
        """How the rows of source number `index` are named; and its first row, to tell its format by.

        Raises:
            WishError: the source has no row, or one that cannot be read.
        """
        first = None
        places, own = array("Q"), {field: array("Q") for field in ID_FIELDS}
        for row in stream.rows():
            first = first or row
            places.append(key(row.id))
            for field in list(own):
                value = row.fields.get(field)
                if isinstance(value, str | int):
                    own[field].append(key(str(value)))
                else:
                    del own[field]
        if first is None:
            raise sources.empty(stream.source)
        column, names = None, _sorted(places)
        for field, values in own.items():
            found = _sorted(values)
            if not (found[1:] == found[:-1]).any():
                column, names = field, found
                break
        if _meet(names, self._taken):
            return Names(column, f"{stream.source.path}#{index}/"), first
        self._taken = np.sort(np.concatenate([self._taken, names]))
        return Names(column, ""), first


def _sorted(numbers: array[int]) -> np.ndarray:
    return np.sort(np.frombuffer(numbers, dtype=np.uint64))


def _meet(some: np.ndarray, others: np.ndarray) -> bool:
    """Whether two sorted arrays have a number in common."""
    if not len(others):
        return False
    at = np.minimum(np.searchsorted(others, some), len(others) - 1)
    return bool((others[at] == some).any())
