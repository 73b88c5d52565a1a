"""Families of cells drawn from the pool: which kernels, which processes, which cells are slower, which are canaries. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..compare.decide import Evidence

if TYPE_CHECKING:
    from ..comparison import Terms
    from .samples import Array

CELLS = 20
"""Of a family."""
CANARIES = 3
"""Of them, the first, that have a second copy of the base, too."""
Slowed = Literal["none", "one", "all"]
"""Which cells of a family are slower."""

Places = np.ndarray[Any, np.dtype[np.intp]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Drawn:
    """Families that were drawn from a pool."""

    kernels: Places
    """[family, cell]: which kernel of the pool the cell is of."""
    differences: Array
    """float64 [family, cell, process]: ln(candidate / base)."""
    copies: Array
    """float64 [family, canary, process]: ln(copy / base); NaN where the pool had no process left for it."""
    slower: Flags
    """[family, cell]: whether the cell is slower."""

    @property
    def canaries(self) -> tuple[str, ...]:
        """The cells that are canaries, too."""
        return tuple(str(cell) for cell in range(self.copies.shape[1]))

    def evidence(self, family: int) -> dict[str, Evidence]:
        """The cells of a family with all processes that a comparison may ever measure of them."""
        found = {}
        for cell, differences in enumerate(self.differences[family]):
            copies = self.copies[family, cell] if cell < self.copies.shape[1] else np.empty(0)
            found[str(cell)] = Evidence(tuple(differences.tolist()), tuple(copies[~np.isnan(copies)].tolist()))
        return found


def depth(terms: Terms) -> int:
    """Processes of a cell that is measured to the end."""
    return max(terms.processes, terms.more_processes) + terms.second_look


def choose(rng: np.random.Generator, shape: tuple[int, ...], processes: int, count: int) -> Places:
    """[*shape, count]: for each place so many different ones of the processes, in random order; all of them if there are fewer."""
    order: Places = rng.random((*shape, processes)).argsort(axis=-1)
    return order[..., : min(count, processes)]


def draw(
    unchanged: Array, rng: np.random.Generator, families: int, terms: Terms, slower: Array | None = None, slowed: Slowed = "none"
) -> Drawn:
    """Families of cells; each cell is a kernel drawn from those of the pool, its processes are drawn without replacement.

    `unchanged` and `slower` are [kernel, process]: log ratios of a copy and of a slowed kernel. A slowed canary has its copy
    in its own processes, as it was measured. Where the candidate is the copy already there is no other: the canary's copies are
    of further processes of the same kernel.

    With `slowed` "one" the slowed cell of family f is of kernel f, f + kernels, …: each kernel is slowed equally often, in
    every other of its families as a canary.
    """
    count, processes = unchanged.shape
    kernels: Places = rng.integers(count, size=(families, CELLS))
    slow = np.full((families, CELLS), slowed == "all")
    if slowed == "one":
        numbers = np.arange(families)
        place = np.where(numbers // count % 2, 0, CELLS - 1)
        slow[numbers, place] = True
        kernels[numbers, place] = numbers % count
    deepest = depth(terms)
    order = choose(rng, (families, CELLS), processes, 2 * deepest)
    taken, further = order[..., :deepest], order[:, :CANARIES, deepest:]
    differences = unchanged[kernels[..., None], taken]
    copies = np.full((families, CANARIES, taken.shape[-1]), np.nan)
    copies[..., : further.shape[-1]] = unchanged[kernels[:, :CANARIES, None], further]
    if slower is not None:
        own = slow[:, :CANARIES]
        copies[own] = differences[:, :CANARIES][own]
        differences[slow] = slower[kernels[slow][:, None], taken[slow]]
    return Drawn(kernels, differences, copies, slow)
