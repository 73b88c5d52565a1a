"""What other rules would have said of the same processes: pytest-benchmark's, Mann-Whitney, pyperf's, a paired t-test. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from scipy import stats as distributions

from .families import CELLS, choose
from .subjects import BASE, VARIANTS

if TYPE_CHECKING:
    from .samples import Array, Pool

Placement = Literal["same", "apart"]
"""Whether base and candidate were measured in the same processes, or in others, as most tools are used."""
Flags = np.ndarray[Any, np.dtype[np.bool_]]
LEVEL = 0.05
CHUNK = 500
"""Comparisons that are looked at together: bounds the memory."""


class Said(NamedTuple):
    """[comparison]: what a rule says of each."""

    slower: Flags
    """The candidate is called slower: what fails a build."""
    different: Flags
    """The two are called different, whichever is the faster."""


@dataclass(frozen=True)
class Rule:
    """One way of comparing."""

    name: str
    processes: int
    """Of each side."""
    placement: Placement
    says: Callable[[Array, Array], Said]
    """Of [comparison, process, sample] of base and candidate."""
    of: str
    """Which tool or habit it stands for."""


def median_5_percent(base: Array, other: Array) -> Said:
    """`--benchmark-compare-fail=median:5%`: current / compared × 100 - 100 > 5, as in pytest_benchmark.utils."""
    before, now = (np.median(side.reshape(len(side), -1), axis=1) for side in (base, other))
    return Said(now / before * 100 - 100 > 5, np.abs(now / before * 100 - 100) > 5)


def mann_whitney(base: Array, other: Array) -> Said:
    """Two-sided Mann-Whitney test over all samples in one heap (Mann and Whitney 1947), p < 0.05."""
    before, now = (side.reshape(len(side), -1) for side in (base, other))
    found = distributions.mannwhitneyu(now, before, axis=1, method="asymptotic")
    different = np.asarray(found.pvalue) < LEVEL
    return Said(different & (np.asarray(found.statistic) > before.shape[1] * now.shape[1] / 2), different)


def pyperf_t(base: Array, other: Array) -> Said:
    """pyperf's own test: Student's t over all values in one heap, at 95 % from its table (pyperf._utils.is_significant)."""
    before, now = (side.reshape(len(side), -1) for side in (base, other))
    count = before.shape[1]
    squares = before.var(axis=1) * count + now.var(axis=1) * count
    error = squares / (2 * count - 2) / count
    score = (now.mean(axis=1) - before.mean(axis=1)) / np.sqrt(error * 2)
    different = np.abs(score) >= critical(2 * count - 2)
    return Said(different & (score > 0), different)


def critical(degrees: int) -> float:
    """The value that pyperf compares its score with: the two-sided 95 % quantile from its rounded table."""
    for least, value in ((200, 1.960), (100, 1.984), (80, 1.990), (60, 2.000), (50, 2.009), (40, 2.021), (31, 2.042)):
        if degrees >= least:
            return value
    return round(float(distributions.t.isf(LEVEL / 2, degrees)), 3)


def pyperf_values(base: Array, other: Array) -> Said:
    """The same of three values of each process, each a mean over a third of its samples: what pyperf keeps by default."""
    return pyperf_t(_thirds(base), _thirds(other))


def _thirds(side: Array) -> Array:
    whole = side[..., : side.shape[-1] // 3 * 3]
    found: Array = whole.reshape(*side.shape[:-1], 3, -1).mean(axis=-1)
    return found


def paired_t(differences: Array) -> Said:
    """Student's t-test that the mean of [comparison, process] log ratios is 0, two-sided, p < 0.05."""
    count = differences.shape[1]
    error = differences.std(axis=1, ddof=1) / math.sqrt(count)
    with np.errstate(divide="ignore", invalid="ignore"):
        score = differences.mean(axis=1) / error
    different = 2 * distributions.t.sf(np.abs(score), count - 1) < LEVEL
    return Said(different & (score > 0), different)


def _of_logs(base: Array, other: Array) -> Said:
    """The paired test of [comparison, process, 1]: base is 0 here, the log ratio itself the other."""
    return paired_t((other - base)[..., 0])


MEDIAN, HEAP, PYPERF, PAIRED = (
    "median:5%",
    "Mann–Whitney over samples, p < 0.05",
    "t over samples, 95 %",
    "paired t over processes, p < 0.05",
)
RULES = (
    Rule(MEDIAN, 1, "apart", median_5_percent, "pytest-benchmark"),
    Rule(MEDIAN, 1, "same", median_5_percent, "pytest-benchmark"),
    Rule(HEAP, 1, "apart", mann_whitney, "a habit"),
    Rule(HEAP, 1, "same", mann_whitney, "a habit"),
    Rule(HEAP, 8, "apart", mann_whitney, "a habit"),
    Rule(HEAP, 8, "same", mann_whitney, "a habit"),
    Rule(PYPERF, 8, "apart", pyperf_t, "pyperf"),
    Rule(PYPERF, 8, "same", pyperf_t, "pyperf"),
    Rule("t over 3 values of each process, 95 %", 20, "apart", pyperf_values, "pyperf, its default processes and values"),
    Rule(PAIRED, 8, "same", _of_logs, "no margin"),
)


@dataclass(frozen=True)
class Asked:
    """Comparisons that a rule was asked about, in families of CELLS."""

    kernels: np.ndarray[Any, np.dtype[np.intp]]
    """[comparison]"""
    said: Said


def possible(rule: Rule, pool: Pool) -> bool:
    """Whether the pool has enough processes for the rule."""
    return rule.processes * (2 if rule.placement == "apart" else 1) <= pool.processes


def ask(rule: Rule, pool: Pool, variant: str, rng: np.random.Generator, families: int) -> Asked:
    """Families of comparisons of a variant with its base; kernel and processes of each are drawn anew."""
    kernels = rng.integers(len(pool.kernels), size=families * CELLS)
    apart = rule.placement == "apart"
    taken = choose(rng, kernels.shape, pool.processes, rule.processes * (2 if apart else 1))
    of_base, of_other = taken[:, : rule.processes], taken[:, -rule.processes :]
    parts = [
        rule.says(
            *_values(rule, pool, variant, kernels[start : start + CHUNK], of_base[start : start + CHUNK], of_other[start : start + CHUNK])
        )
        for start in range(0, len(kernels), CHUNK)
    ]
    return Asked(kernels, Said(*(np.concatenate(column) for column in zip(*parts, strict=True))))


def _values(rule: Rule, pool: Pool, variant: str, kernels: Any, of_base: Any, of_other: Any) -> tuple[Array, Array]:
    """[comparison, process, sample] of base and candidate; for the paired rule log ratios, and 0 for the base."""
    if rule.says is _of_logs:
        found = pool.of(variant)[kernels[:, None], of_other][..., None]
        return np.zeros_like(found), found
    place = VARIANTS.index(variant)
    base = pool.samples_s[kernels[:, None], VARIANTS.index(BASE), of_base].astype(float)
    return base, pool.samples_s[kernels[:, None], place, of_other].astype(float)


def agreement(pool: Pool, rng: np.random.Generator, times: int = 50) -> str:
    """Whether the tools themselves say the same as the formulas here, in a sentence."""
    rules = {PYPERF: _theirs_pyperf, MEDIAN: _theirs_median}
    said = []
    for rule in RULES:
        if rule.name not in rules or rule.placement != "same" or not possible(rule, pool):
            continue
        try:
            theirs = rules[rule.name]()
        except ImportError:
            said.append(f"{rule.of} is not installed: its formula was not compared with its code")
            continue
        kernels = rng.integers(len(pool.kernels), size=times)
        taken = choose(rng, kernels.shape, pool.processes, rule.processes)
        base, other = _values(rule, pool, VARIANTS[2], kernels, taken, taken)
        ours = rule.says(base, other)
        field = ours.slower if rule.name == MEDIAN else ours.different
        same = sum(bool(mine) == theirs(a.ravel().tolist(), b.ravel().tolist()) for mine, a, b in zip(field, base, other, strict=True))
        said.append(f"{rule.of}'s own code says the same in {same} of {times} comparisons")
    return "; ".join(said)


def _theirs_pyperf() -> Callable[[list[float], list[float]], bool]:
    from pyperf._utils import is_significant

    return lambda base, other: bool(is_significant(base, other)[0])


def _theirs_median() -> Callable[[list[float], list[float]], bool]:
    from pytest_benchmark.utils import parse_compare_fail

    check: Any = parse_compare_fail("median:5%")  # type: ignore[no-untyped-call,unused-ignore]
    return lambda base, other: check.fails({"median": float(np.median(other))}, {"median": float(np.median(base))}) is not None
