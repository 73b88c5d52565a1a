"""From log ratios of processes to a word for each cell: margins, Holm, equivalence, two looks, canaries, power.

The unit is the process: identical code in fresh processes differs by several times what one process says of itself. Whether
a cell regressed is a one-sided test against a margin, corrected over all cells (Holm 1979); SAME is claimed only where both
bounds lie inside the margin (two one-sided tests, Schuirmann 1987). Student's intervals are cross-checked with the BCa
bootstrap (Efron 1987): where the two disagree nothing is concluded. No torch, no kernels.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy import stats as distributions

from ..comparison import Terms
from ..stats import MIN_PROCESSES

Word = Literal["REGRESSED", "IMPROVED", "SAME", "INCONCLUSIVE"]
ONE_SIDED = 0.95
"""Confidence of each bound in equivalence and in the cross-check."""
OWN_NOISE = 3.0
"""A margin is at least so many standard errors of the cell's own comparison with a copy of itself."""
RESAMPLES = 2000
SEEN = 0.05
"""The slowdown whose chance to be seen is told."""


@dataclass(frozen=True)
class Evidence:
    """What was measured of one cell: ln(candidate / base), process by process, and ln(copy / base) where there is a copy."""

    differences: tuple[float, ...]
    copies: tuple[float, ...] = ()


@dataclass(frozen=True)
class Reading:
    """The differences of a cell in numbers; all of them logarithms of ratios."""

    mean: float
    spread: float
    """Standard deviation between processes."""
    processes: int
    low: float
    high: float
    """Of the two-sided 95 % interval."""
    at_least: float
    """One-sided 95 % lower bound."""
    at_most: float
    """One-sided 95 % upper bound."""
    margin: float
    """As a fraction: the ratio had to be beyond 1 + margin, or below 1 / (1 + margin)."""
    p_slower: float
    p_faster: float


@dataclass(frozen=True)
class Decision:
    """One cell, decided."""

    word: Word
    reading: Reading | None
    """None where fewer than two processes were measured."""
    why: str
    advisory: bool = False
    """So noisy that only a large change counts."""
    looks: int = 1


def decide(
    cells: Mapping[str, Evidence], terms: Terms, looked: Mapping[str, int] | None = None, doubted: Collection[str] = ()
) -> dict[str, Decision]:
    """The final word on every cell, after one or two looks.

    `looked`: how many processes the first look had, where that is on record; `doubted`: cells whose improvement, too, needs
    a second look.

    The first look takes the processes that `first_look_at` says; further ones were measured only for cells that were
    regressed or inconclusive then, and the second look takes all of theirs. What the first look called regressed and the
    second does not confirm is inconclusive: nobody measures again until it is green.
    """
    firsts = {cell: (looked or {}).get(cell, first_look_at(evidence, terms)) for cell, evidence in cells.items()}
    first = look({cell: cut(cells[cell], n) for cell, n in firsts.items()}, terms, terms.alpha * terms.first_look)
    again = {
        cell: cells[cell]
        for cell, n in firsts.items()
        if len(cells[cell].differences) > n and unsettled(first[cell], doubted=cell in doubted)
    }
    if not again:
        return first
    second = look(again, terms, terms.alpha * (1 - terms.first_look), family=len(cells))
    for cell, decision in second.items():
        confirmed = first[cell].word not in ("REGRESSED", "IMPROVED") or decision.word == first[cell].word
        word: Word = decision.word if confirmed else "INCONCLUSIVE"
        why = (
            decision.why
            if confirmed
            else f"{first[cell].word.lower()} at the first look, which the second, with more processes, does not confirm"
        )
        first[cell] = replace(decision, word=word, why=why, looks=2)
    return first


def restless(evidence: Evidence, terms: Terms) -> bool:
    """Whether the first processes of a cell scatter so much that more are measured. The scatter says nothing of the mean."""
    return max(spread(evidence.differences[: terms.processes]), spread(evidence.copies[: terms.processes])) > terms.restless


def first_look_at(evidence: Evidence, terms: Terms) -> int:
    """How many processes of a cell the first look takes."""
    return min(terms.more_processes if restless(evidence, terms) else terms.processes, len(evidence.differences))


def cut(evidence: Evidence, processes: int) -> Evidence:
    """The first so many processes."""
    return Evidence(evidence.differences[:processes], evidence.copies[:processes])


def unsettled(decision: Decision, *, doubted: bool = False) -> bool:
    """Whether a cell gets its second look."""
    return decision.word in ("REGRESSED", "INCONCLUSIVE") or (doubted and decision.word == "IMPROVED")


def look(cells: Mapping[str, Evidence], terms: Terms, alpha: float, *, family: int | None = None) -> dict[str, Decision]:
    """One look at all cells, with the chance `alpha` of a false alarm in a family of so many (by default: these)."""
    readings = {cell: read(evidence, terms) for cell, evidence in cells.items()}
    size = max(family or 0, len(cells))
    slower = holm({cell: reading.p_slower for cell, reading in readings.items() if reading}, alpha, size)
    faster = holm({cell: reading.p_faster for cell, reading in readings.items() if reading}, alpha, size)
    return {
        cell: _decision(cells[cell], reading, terms, slower=cell in slower, faster=cell in faster) for cell, reading in readings.items()
    }


def read(evidence: Evidence, terms: Terms) -> Reading | None:
    """A cell in numbers, against its margin; None for fewer than two processes."""
    differences = evidence.differences
    if len(differences) < 2:
        return None
    scatter = spread(differences)
    margin = max(terms.margin, OWN_NOISE * _error(evidence.copies))
    if scatter > terms.noisy:
        margin = max(margin, terms.noisy_margin)
    return reading(differences, margin)


def reading(differences: Sequence[float], margin: float) -> Reading:
    """Student's bounds, and both one-sided tests against a margin. Raises ValueError for fewer than two differences."""
    count = len(differences)
    if count < 2:
        raise ValueError(f"{count} process says nothing about others: at least 2 are needed")
    mean, error, reach = math.fsum(differences) / count, _error(differences), math.log1p(margin)
    two_sided, one_sided = (float(distributions.t.ppf(level, count - 1)) for level in ((1 + 0.95) / 2, ONE_SIDED))
    return Reading(
        mean=mean,
        spread=spread(differences),
        processes=count,
        low=mean - two_sided * error,
        high=mean + two_sided * error,
        at_least=mean - one_sided * error,
        at_most=mean + one_sided * error,
        margin=margin,
        p_slower=_tail(mean - reach, error, count),
        p_faster=_tail(-mean - reach, error, count),
    )


def holm(p_values: Mapping[str, float], alpha: float, family: int | None = None) -> set[str]:
    """Those that Holm's step-down procedure rejects; `family` counts tests that are not listed, too, as not rejected."""
    size, rejected = max(family or 0, len(p_values)), set[str]()
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        if p > alpha / (size - rank):
            break
        rejected.add(name)
    return rejected


@lru_cache(maxsize=1024)
def bootstrapped(differences: tuple[float, ...]) -> tuple[float, float]:
    """One-sided 95 % bounds of the mean by the BCa bootstrap; the mean itself where all are equal."""
    values = np.asarray(differences, dtype=float)
    if float(np.ptp(values)) <= 1e-12:
        return float(values.mean()), float(values.mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of degenerate data: its bounds are NaN, and NaN agrees with nothing
        found = distributions.bootstrap(
            (values,), np.mean, confidence_level=2 * ONE_SIDED - 1, n_resamples=RESAMPLES, rng=np.random.default_rng(0), method="BCa"
        )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def canaries(copies: Mapping[str, Sequence[float]], terms: Terms) -> dict[str, tuple[Literal["SAME", "DIFFERS", "INCONCLUSIVE"], str]]:
    """Whether a base is like its own copy, cell by cell: a word and a sentence."""
    readings = {cell: reading(values, terms.canary_margin) for cell, values in copies.items() if len(values) >= MIN_PROCESSES}
    # either direction would be wrong, hence half of alpha for each
    beyond = holm({cell: min(one.p_slower, one.p_faster) for cell, one in readings.items()}, terms.canary_alpha / 2, len(copies))
    found: dict[str, tuple[Literal["SAME", "DIFFERS", "INCONCLUSIVE"], str]] = {}
    for cell in copies:
        one, reach = readings.get(cell), math.log1p(terms.canary_margin)
        if one is None:
            found[cell] = "INCONCLUSIVE", f"fewer than {MIN_PROCESSES} processes"
        elif cell in beyond:
            found[cell] = "DIFFERS", f"the base differs from its own copy by {math.expm1(one.mean):+.1%}: nothing here can be believed"
        elif one.at_least > -reach and one.at_most < reach:
            found[cell] = "SAME", f"within ±{terms.canary_margin:.0%} of its own copy"
        else:
            bounds = f"[{math.expm1(one.at_least):+.1%}, {math.expm1(one.at_most):+.1%}]"
            found[cell] = "INCONCLUSIVE", f"known to {bounds} only: not proved to be within ±{terms.canary_margin:.0%} of its own copy"
    return found


def power(
    scatter: float,
    processes: int,
    terms: Terms,
    *,
    cells: int,
    alpha: float | None = None,
    slowdown: float = SEEN,
    margin: float | None = None,
) -> float:
    """Chance that a slowdown is called REGRESSED at one look: Student's noncentral t, at Holm's strictest level.

    `margin`: the cell's own, where it is known.
    """
    if processes < 2:
        return 0.0
    usual = terms.noisy_margin if scatter > terms.noisy else terms.margin
    gap = math.log1p(slowdown) - math.log1p(usual if margin is None else margin)
    if scatter <= 0:
        return float(gap > 0)
    level = (terms.alpha * terms.first_look if alpha is None else alpha) / max(cells, 1)
    critical = float(distributions.t.isf(level, processes - 1))
    return float(distributions.nct.sf(critical, processes - 1, gap / (scatter / math.sqrt(processes))))


def spread(values: Sequence[float]) -> float:
    """Standard deviation; 0 for fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _error(values: Sequence[float]) -> float:
    """Standard error of the mean."""
    return spread(values) / math.sqrt(len(values)) if len(values) else 0.0


def _tail(distance: float, error: float, count: int) -> float:
    """Chance of a mean this far beyond its bound, were the bound the truth."""
    if error == 0:
        return 0.0 if distance > 0 else 1.0
    return float(distributions.t.sf(distance / error, count - 1))


def _decision(evidence: Evidence, found: Reading | None, terms: Terms, *, slower: bool, faster: bool) -> Decision:
    if found is None or found.processes < MIN_PROCESSES:
        return Decision("INCONCLUSIVE", found, f"{len(evidence.differences)} processes only: at least {MIN_PROCESSES} are needed")
    advisory = found.spread > terms.noisy
    low, high = bootstrapped(evidence.differences)
    changed, same = math.log1p(found.margin), math.log1p(terms.margin)
    if slower or faster:
        beyond = low > changed if slower else high < -changed
        word: Word = "REGRESSED" if slower else "IMPROVED"
        if beyond:
            return Decision(word, found, f"{math.expm1(found.mean):+.1%}, beyond the margin of {found.margin:.1%}", advisory)
        return Decision("INCONCLUSIVE", found, "Student's interval and the bootstrap disagree", advisory)
    if found.at_least > -same and found.at_most < same:
        if low > -same and high < same:
            return Decision("SAME", found, f"within ±{terms.margin:.0%}", advisory)
        return Decision("INCONCLUSIVE", found, "Student's interval and the bootstrap disagree", advisory)
    bounds = f"[{math.expm1(found.at_least):+.1%}, {math.expm1(found.at_most):+.1%}]"
    if found.at_least > changed or found.at_most < -changed:
        likely = "slower" if found.mean > 0 else "faster"
        return Decision("INCONCLUSIVE", found, f"probably {likely}, {bounds}, but not surely enough among so many cells", advisory)
    return Decision(
        "INCONCLUSIVE",
        found,
        f"known to {bounds} only (one-sided 95 % bounds), after {found.processes} processes that scatter by {found.spread:.1%}",
        advisory,
    )
