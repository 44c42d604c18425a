"""Micro-batches as a pure function of the step: resuming anywhere needs one integer, for any world size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from engine.config import Run
from engine.data.batch import Batch, Encoded, build
from engine.data.corpus import Corpus
from engine.data.order import Order, epoch_order, key, permutation
from engine.data.pack import Packing, best_fit, singles
from engine.errors import WishError


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of every step is this rank's.

    `sequence` neighbouring ranks share the same rows; each has a part of their columns.
    """

    rank: int
    world_size: int
    global_batch: int
    micro_batch: int
    sequence: int = 1

    def __post_init__(self) -> None:
        each = self.groups * self.micro_batch
        if self.global_batch % each:
            below, above = self.global_batch // each * each, -(-self.global_batch // each) * each
            options = f"{below} or {above}" if below else str(above)
            raise WishError(
                f"train.global_batch {self.global_batch} is not divisible by {self.groups} "
                f"{'ranks' if self.sequence == 1 else f'groups of {self.sequence} ranks'} x "
                f"micro-batch {self.micro_batch}",
                f"use {options}",
            )

    @property
    def groups(self) -> int:
        """Groups of ranks that work on rows of their own."""
        return self.world_size // self.sequence

    @property
    def group(self) -> int:
        """The group this rank is in."""
        return self.rank // self.sequence

    @property
    def rows(self) -> int:
        """Rows of a step this rank works on."""
        return self.global_batch // self.groups

    def batches(
        self, rows: Sequence[Sequence[Encoded]], *, pad_id: int, max_length: int, joined: bool
    ) -> list[Batch]:
        """Rows of this rank's group as micro-batches: its part of them."""
        return [
            build(
                rows[start : start + self.micro_batch],
                pad_id=pad_id,
                max_length=max_length,
                multiple=self.sequence,
                joined=joined,
            ).part(self.rank % self.sequence, self.sequence)
            for start in range(0, len(rows), self.micro_batch)
        ]


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows of one epoch: which samples, in which row, rows in stream order."""

    order: Order
    packing: Packing
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


class Loader:
    """The training stream: epochs of shuffled, packed rows, one after another without a gap.

    Optimizer step s trains rows [s * global_batch, (s + 1) * global_batch) of the stream; each group of ranks works
    on its contiguous share of them. The stream does not know of ranks. Past the last row of the run rows are empty.

    Attributes:
        joined: whether the rows of a micro-batch are laid into one, for a model that keeps samples apart and would
            compute padding for nothing.
    """

    def __init__(self, corpora: Sequence[Corpus], run: Run, share: Share, *, pad_id: int) -> None:
        assert run.data is not None
        self._corpora = tuple(corpora)
        self._counts = [len(corpus) for corpus in corpora]
        self._weights = [source.weight for source in run.data.train]
        self._seed = run.seed
        self._share = share
        self._pad_id = pad_id
        self._max_length = run.data.max_length
        self.joined = False
        self._packing = run.data.packing
        self._plans: dict[int, Plan] = {}
        self._rows_before = [0]
        # Every epoch then shows the same rows, so all epochs pack into the same number of rows.
        self._alike = all(float(weight).is_integer() for weight in self._weights) or not self._packing
        self._rows = None if run.train.steps else self._rows_of(run.train.epochs)
        self.steps: int = run.train.steps or math.ceil((self._rows or 0) / share.global_batch)

    @property
    def rows_per_epoch(self) -> int:
        """Rows of the first epoch; later ones differ by a few if weights are fractional and rows packed."""
        return self._before(1)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps the first epoch takes, rounded up."""
        return math.ceil(self.rows_per_epoch / self._share.global_batch)

    def epoch_at(self, step: int) -> float:
        """Epochs done before step `step`."""
        epoch, row = self._locate(step * self._share.global_batch)
        return epoch + row / (self._before(epoch + 1) - self._before(epoch))

    def micro_batches(self, step: int) -> list[Batch]:
        """This rank's micro-batches of optimizer step `step`; all ranks get the same number."""
        share = self._share
        first = step * share.global_batch + share.group * share.rows
        rows = [self.row(index) for index in range(first, first + share.rows)]
        return share.batches(rows, pad_id=self._pad_id, max_length=self._max_length, joined=self.joined)

    def largest(self) -> Batch:
        """A micro-batch that none of the stream exceeds: as many tokens as its longest rows have, cut into as many
        samples, and as many of them trained as in those rows that train most, in other columns in each row."""
        plan, micro = self.plan(0), self._share.micro_batch
        members, starts = plan.packing.members, plan.packing.offsets[:-1]
        rooms = self.lengths(plan.order)
        tokens = np.add.reduceat(rooms[members], starts)
        trained = np.add.reduceat(self._trained(plan.order)[members], starts)
        often = self._often(len(plan))
        chosen = np.lexsort((np.diff(plan.packing.offsets), tokens))[::-1].repeat(often)[:micro]
        parts = [rooms[plan.packing.row(row)] for row in chosen]
        counts = np.sort(trained)[::-1].repeat(often)[:micro]
        longest, full = self._longest(), int(parts[0].sum())
        if longest > full:
            parts[0], counts[0] = np.array([longest]), math.ceil(counts[0] * longest / full)
        if self.joined and any(not float(weight).is_integer() for weight in self._weights):
            # Later epochs draw other samples, and all rows of a micro-batch count, not the longest alone.
            parts = [np.array([max(longest, full)])] * len(parts)
        rows = [
            self._filled(part, int(count), int(counts[:at].sum()))
            for at, (part, count) in enumerate(zip(parts, counts, strict=True))
        ]
        rows += rows[:1] * (micro - len(rows))
        [batch] = self._share.batches(
            rows, pad_id=self._pad_id, max_length=self._max_length, joined=self.joined
        )
        return batch

    def _often(self, rows: int) -> int:
        """How often a micro-batch can have the same row: it may reach from one epoch into others."""
        micro, all_rows = self._share.micro_batch, self._rows or self.steps * self._share.global_batch
        if micro == 1 or all_rows <= rows:
            return 1
        return min(micro, (micro - 2) // rows + 2)

    def _longest(self) -> int:
        """The most tokens a row of any epoch can have: later epochs draw other samples, and pack them otherwise."""
        if self._alike:
            return max(int(corpus.lengths.max(initial=0)) for corpus in self._corpora)
        drawn = sum(
            (math.ceil(weight) + 1) * int(corpus.lengths.sum())
            for weight, corpus in zip(self._weights, self._corpora, strict=True)
        )
        return min(self._max_length, drawn)

    def _trained(self, order: Order) -> np.ndarray:
        """The most trained tokens each sample of an epoch can have."""
        counts = np.empty(len(order.rows), dtype=np.int64)
        for source, corpus in enumerate(self._corpora):
            here = order.sources == source
            counts[here] = corpus.trained_counts[order.rows[here]]
        return counts

    def _filled(self, parts: np.ndarray, trained: int, shift: int) -> list[Encoded]:
        """A row of samples of these lengths, of the data's tokens, `trained` of them trained, from column `shift`."""
        total = int(parts.sum())
        mask = np.roll(np.arange(total) < trained, shift % total)
        ids = np.resize(max(self._corpora, key=lambda corpus: len(corpus.tokens)).tokens[:total], total)
        ends = np.cumsum(parts)
        classes = any(corpus.targets is not None for corpus in self._corpora)
        return [
            Encoded(
                "rehearsal",
                ids[end - part : end],
                mask[end - part : end],
                np.zeros(part, dtype=np.int32) if classes else None,
            )
            for part, end in zip(parts, ends, strict=True)
        ]

    def row(self, index: int) -> list[Encoded]:
        """Row `index` of the stream; empty past the end of the run."""
        if self._rows is not None and index >= self._rows:
            return []
        epoch, row = self._locate(index)
        plan = self.plan(epoch)
        order = plan.order
        return [
            self._corpora[order.sources[at]].sample(int(order.rows[at]), int(order.passes[at]))
            for at in plan.packing.row(int(plan.rows[row]))
        ]

    def plan(self, epoch: int) -> Plan:
        """The rows of an epoch. Two are kept, for the steps that reach from one epoch into the next."""
        if epoch not in self._plans:
            order = epoch_order(self._counts, self._weights, seed=self._seed, epoch=epoch)
            packing = (
                best_fit(self.lengths(order), self._max_length) if self._packing else singles(len(order.rows))
            )
            rows = permutation(len(packing), seed=key(self._seed, "rows", epoch))
            for old in [number for number in self._plans if number != epoch - 1]:
                del self._plans[old]
            self._plans[epoch] = Plan(order, packing, rows)
        return self._plans[epoch]

    def lengths(self, order: Order) -> np.ndarray:
        """Room each sample of an epoch takes, in tokens."""
        lengths = np.empty(len(order.rows), dtype=np.int64)
        for source, corpus in enumerate(self._corpora):
            here = order.sources == source
            lengths[here] = corpus.lengths[order.rows[here]]
        return lengths

    def _before(self, epoch: int) -> int:
        """Rows of the stream before an epoch."""
        if self._alike and epoch > 1:
            return self._before(1) * epoch
        while len(self._rows_before) <= epoch:
            self._rows_before.append(self._rows_before[-1] + len(self.plan(len(self._rows_before) - 1)))
        return self._rows_before[epoch]

    def _locate(self, index: int) -> tuple[int, int]:
        """Epoch and row within it of a row of the stream."""
        if self._alike:
            return divmod(index, self._before(1))
        epoch = 0
        while self._before(epoch + 1) <= index:
            epoch += 1
        return epoch, index - self._before(epoch)

    def _rows_of(self, epochs: float) -> int:
        """Rows in a number of epochs, the last of which may be a fraction."""
        whole = int(epochs)
        rows = self._before(whole)
        if epochs > whole:
            rows += math.ceil((epochs - whole) * (self._before(whole + 1) - rows))
        return rows


class Validation:
    """This rank's share of the validation rows, in file order; every rank gets the same number of batches.

    Attributes:
        joined: as of `Loader`.
    """

    def __init__(self, corpora: Sequence[Corpus], run: Run, share: Share, *, pad_id: int) -> None:
        assert run.data is not None
        samples = [corpus.sample(row, 0) for corpus in corpora for row in range(len(corpus))]
        lengths = np.array([len(sample) for sample in samples], dtype=np.int64)
        packing = best_fit(lengths, run.data.max_length) if run.data.packing else singles(len(samples))
        rows = [[samples[at] for at in packing.row(index)] for index in range(len(packing))]
        each = -(-len(rows) // (share.groups * share.micro_batch)) * share.micro_batch
        rows += [[] for _ in range(each * share.groups - len(rows))]
        self._rows = rows[share.group * each : (share.group + 1) * each]
        self._share = share
        self._pad_id = pad_id
        self._max_length = run.data.max_length
        self.joined = False

    def __len__(self) -> int:
        return len(self._rows) // self._share.micro_batch

    def __iter__(self) -> Iterator[Batch]:
        micro = self._share.micro_batch
        for start in range(0, len(self._rows), micro):
            yield from self._share.batches(
                self._rows[start : start + micro],
                pad_id=self._pad_id,
                max_length=self._max_length,
                joined=self.joined,
            )
