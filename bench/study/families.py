"""Families of cells drawn from the pool, and what the rule of comparisons says of them: all of `decide`, both looks. No torch."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import stats as distributions

from ..compare.decide import Decision, Evidence, canaries, cut, decide, first_look_at, unsettled
from ..verdict import EXIT_FINE, EXIT_REGRESSED, EXIT_TOO_NOISY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..comparison import Terms
    from .samples import Array

CELLS = 20
"""Of a family."""
CANARIES = 3
"""Of them that have a second copy of the base, too."""
Slowed = Literal["none", "one", "all"]
"""Which cells of a family are slower."""

Places = np.ndarray[Any, np.dtype[np.intp]]


@dataclass(frozen=True)
class Drawn:
    """Families that were drawn from a pool."""

    kernels: Places
    """[family, cell]: which kernel of the pool the cell is of."""
    differences: Array
    """float64 [family, cell, process]: ln(candidate / base)."""
    copies: Array
    """float64 [family, canary, process]: ln(copy / base)."""
    slowed: Slowed

    def evidence(self, family: int, terms: Terms) -> dict[str, Evidence]:
        """The cells of a family, each with as many processes as a comparison would have measured of it at most.

        Where cells are slower the first few are canaries as well. Where nothing is, the candidate is the copy already.
        """
        found = {}
        for cell in range(self.differences.shape[1]):
            copied = self.copies[family, cell].tolist() if self.slowed != "none" and cell < self.copies.shape[1] else []
            every = Evidence(tuple(self.differences[family, cell].tolist()), tuple(copied))
            found[str(cell)] = cut(every, first_look_at(every, terms) + terms.second_look)
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

    `unchanged` and `slower` are [kernel, process]: log ratios of a copy and of a slowed kernel. With `slowed` "one" the
    slowed cell of family f is of kernel f, f + kernels, …: each kernel is slowed equally often.
    """
    count, processes = unchanged.shape
    kernels: Places = rng.integers(count, size=(families, CELLS))
    if slowed == "one":
        kernels[:, -1] = np.arange(families) % count
    taken = choose(rng, (families, CELLS), processes, depth(terms))
    differences = unchanged[kernels[..., None], taken]
    copies = differences[:, :CANARIES].copy()
    if slowed == "none":  # a canary has processes of its own here
        copies = unchanged[kernels[:, :CANARIES, None], choose(rng, (families, CANARIES), processes, depth(terms))]
    elif slower is not None:
        first = 0 if slowed == "all" else CELLS - 1
        differences[:, first:] = slower[kernels[:, first:, None], taken[:, first:]]
    return Drawn(kernels, differences, copies, slowed)


@dataclass
class Judged:
    """One family, decided."""

    first: dict[str, Decision]
    final: dict[str, Decision]
    differs: int
    """Canaries that say that equal kernels are not equal."""
    exit_code: int

    @property
    def alarmed(self) -> bool:
        """Whether any cell is called regressed in the end."""
        return any(one.word == "REGRESSED" for one in self.final.values())

    @property
    def words(self) -> Counter[str]:
        """How often each word was said in the end."""
        return Counter(one.word for one in self.final.values())


def judge(drawn: Drawn, family: int, terms: Terms) -> Judged:
    """What a comparison would say of this family at the first look, in the end, and by its exit code."""
    cells = drawn.evidence(family, terms)
    first = decide({name: cut(one, first_look_at(one, terms)) for name, one in cells.items()}, terms)
    again = any(unsettled(one) and len(cells[name].differences) > first_look_at(cells[name], terms) for name, one in first.items())
    final = decide(cells, terms) if again else first
    said = canaries({str(number): _canary(values.tolist(), terms) for number, values in enumerate(drawn.copies[family])}, terms)
    differs = sum(word == "DIFFERS" for word, _ in said.values())
    return Judged(first, final, differs, exit_code(final, differs, terms))


def exit_code(decisions: dict[str, Decision], differing_canaries: int, terms: Terms) -> int:
    """What CI would be told of times alone."""
    words = [one.word for one in decisions.values()]
    if differing_canaries:
        return EXIT_TOO_NOISY
    if "REGRESSED" in words:
        return EXIT_REGRESSED
    return EXIT_TOO_NOISY if words.count("INCONCLUSIVE") > terms.too_many_inconclusive * len(words) else EXIT_FINE


def _canary(values: list[float], terms: Terms) -> list[float]:
    """The processes that a canary has at the first look."""
    return values[: first_look_at(Evidence(tuple(values)), terms)]


def suspected(differences: Array, terms: Terms) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """[family]: whether any cell can be called regressed at all; for the others `decide` need not be asked.

    Holm's procedure rejects nothing unless the smallest p is at most alpha divided by the number of cells, and no rule of
    a cell's own makes its margin smaller than the common one.
    """
    cells, processes = differences.shape[1:]
    found = np.zeros(len(differences), dtype=bool)
    firsts = {min(terms.processes, processes), min(terms.more_processes, processes)}
    looks = [(count, terms.first_look) for count in firsts]
    looks += [(min(count + terms.second_look, processes), 1 - terms.first_look) for count in firsts]
    for count, share in looks:
        if count >= 2:
            found |= (_p_slower(differences[..., :count], terms.margin) <= terms.alpha * share / cells).any(axis=1)
    return found


def _p_slower(differences: Array, margin: float) -> Array:
    """[…]: one-sided p of Student's test that the mean of the last axis is beyond the margin."""
    count = differences.shape[-1]
    distance = differences.mean(axis=-1) - math.log1p(margin)
    error = differences.std(axis=-1, ddof=1) / math.sqrt(count)
    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.where(error > 0, distance / error, np.where(distance > 0, math.inf, -math.inf))
    found: Array = distributions.t.sf(score, count - 1)
    return found


def alarms(drawn: Drawn, terms: Terms) -> int:
    """Families with any cell that is called regressed."""
    flagged = np.flatnonzero(suspected(drawn.differences, terms))
    return sum(any(one.word == "REGRESSED" for one in decide(drawn.evidence(family, terms), terms).values()) for family in flagged.tolist())


def resampled(unchanged: Array, rng: np.random.Generator, replicates: int, families: int, terms: Terms) -> Array:
    """[replicate]: false alarms per family of a pool whose processes were drawn anew, with replacement, kernel by kernel."""
    count, processes = unchanged.shape
    found = []
    for _ in range(replicates):
        again = np.take_along_axis(unchanged, rng.integers(processes, size=(count, processes)), axis=1)
        found.append(alarms(draw(again, rng, families, terms), terms) / families)
    return np.array(found)


@dataclass
class Disjoint:
    """Cells of which no two share a process; each takes processes that were measured one after the other, as a comparison does."""

    families: int = 0
    alarms: int = 0
    cells: int = 0
    """All cells that there are, also those beyond the last whole family …"""
    slower: int = 0
    """… and those of them that were called regressed, each family as one."""
    words: Counter[str] = field(default_factory=Counter)


def disjoint(unchanged: Array, terms: Terms, processes: int) -> Disjoint:
    """Families built of disjoint blocks of so many consecutive processes, the kernels in turn.

    With fewer processes than a cell needs to the end, what comes out is the first look alone.
    """
    more = terms.second_look if processes >= depth(terms) else 0
    blocks = list(_blocks(unchanged, processes))
    found = Disjoint(families=len(blocks) // CELLS, cells=len(blocks))
    for start in range(0, len(blocks), CELLS):
        chunk = {str(number): Evidence(tuple(block)) for number, block in enumerate(blocks[start : start + CELLS])}
        said = decide({name: cut(one, first_look_at(one, terms) + more) for name, one in chunk.items()}, terms)
        found.words.update(one.word for one in said.values())
        found.alarms += len(chunk) == CELLS and any(one.word == "REGRESSED" for one in said.values())
    found.slower = found.words["REGRESSED"]
    return found


def _blocks(unchanged: Array, processes: int) -> Iterator[list[float]]:
    for start in range(0, unchanged.shape[1] - processes + 1, processes):
        for kernel in range(unchanged.shape[0]):
            yield unchanged[kernel, start : start + processes].tolist()
