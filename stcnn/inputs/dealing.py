"""The negative control's labels: an epoch whose traces are dealt to other stimuli and neurons."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from inputs.ca_dataloader import EpochOrder, Item

GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


class DealtOrder(EpochOrder):
    """The negative control: what an epoch draws, every draw with the trace of another one.

    Pictures and traces are those of EpochOrder, each as often, and a trace stays with its cell
    type; which neuron and which stimulus it was recorded from is dealt anew in every epoch. What a
    fixed deal leaves is learnt: the gain of each neuron, and a tuning by chance.
    """

    def __init__(
        self,
        rows: Sequence[int],
        *,
        items: Sequence[Item],
        seed: int,
        shuffle: bool = True,
        repeats: Sequence[int] | None = None,
    ) -> None:
        """Order ``rows`` of the Items of a data set; ``repeats`` as in EpochOrder."""
        super().__init__(rows, seed=seed, shuffle=shuffle, repeats=repeats)
        self.groups = {}  # {cell type: its draws, neighbours in stimulus and neuron side by side}
        draws = sorted(range(len(self.rows)), key=lambda i: self._place(items, i))
        for i in draws:
            self.groups.setdefault(items[self.rows[i]].cell_type, []).append(i)

    def _place(self, items, i):
        item = items[self.rows[i]]
        return item.barcode, item.neuron_num, int(self.rows[i])

    def __iter__(self) -> Iterator[tuple[int, int]]:
        labels = self.rows.copy()
        for own in self.groups.values():
            labels[own] = self.rows[dealt(own, [self.seed, self.epoch])]
        draws = np.arange(len(self.rows))
        if self.shuffle:
            draws = np.random.default_rng([self.seed, self.epoch]).permutation(draws)
        return iter(list(zip(self.rows[draws].tolist(), labels[draws].tolist(), strict=True)))


def dealt(cards: list, seed: int | list[int]) -> list:
    """Return ``cards`` dealt round so that neighbours get cards from all over the list.

    Numbers of stimuli count along families, sizes and speeds. A plain shuffle now and then deals
    the stimuli of a family to one another, and a control then learns the family; steps of the
    golden section spread every run of neighbours evenly. No card stays where it is, except alone.
    """
    n = len(cards)
    steps = [step for step in range(1, n) if math.gcd(step, n) == 1]
    step = min(steps, key=lambda value: abs(value - GOLDEN * n), default=1)
    start = np.random.default_rng([*np.atleast_1d(seed).tolist(), 2]).integers(n)
    other = (start + step * np.arange(n)) % n
    for i in np.flatnonzero(other == np.arange(n)) if n > 1 else ():
        across = (i + n // 2) % n
        other[[i, across]] = other[[across, i]]
    return [cards[i] for i in other]
