"""False alarms counted without deciding every family in full: pools drawn anew, and cells that share no process. No torch."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats as distributions

from ..compare.decide import Evidence, cut, decide, first_look_at
from .families import CELLS, Drawn, Flags, depth, draw
from .judging import judge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..comparison import Terms
    from .samples import Array


def suspected(differences: Array, terms: Terms) -> Flags:
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
    return sum(judge(drawn, family, terms).calls("REGRESSED") for family in flagged.tolist())


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
