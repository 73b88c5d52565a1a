"""What other rules would have said of the same processes: pytest-benchmark's, Mann-Whitney, pyperf's, a paired t-test. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from scipy import stats as distributions

from .families import CELLS, Flags, Places, choose
from .subjects import BASE, VARIANTS

if TYPE_CHECKING:
    from .samples import Array, Pool

Placement = Literal["in turn", "apart", "same"]
"""In turn: the candidate's processes right after the base's, as most tools are used; apart: base and candidate in any different
processes, so that hours may lie between them; same: both in the same processes."""
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


MEDIAN, HEAP, PYPERF, VALUES, PAIRED = (
    "median:5%",
    "Mann–Whitney over samples, p < 0.05",
    "t over samples, 95 %",
    "t over 3 values of each process, 95 %",
    "paired t over processes, p < 0.05",
)
UNPAIRED: tuple[Placement, ...] = ("in turn", "apart")
RULES = (
    *(Rule(MEDIAN, 1, placement, median_5_percent, "pytest-benchmark") for placement in UNPAIRED),
    *(Rule(HEAP, 1, placement, mann_whitney, "a habit") for placement in (*UNPAIRED, "same")),
    *(Rule(HEAP, 8, placement, mann_whitney, "a habit") for placement in UNPAIRED),
    *(Rule(PYPERF, 8, placement, pyperf_t, "pyperf") for placement in UNPAIRED),
    *(Rule(VALUES, 20, placement, pyperf_values, "pyperf, its default processes and values") for placement in UNPAIRED),
    Rule(PAIRED, 8, "same", _of_logs, "no margin"),
)
"""Placements that a tool offers, or that people use; the paired test is what a comparison without margins would be."""


@dataclass(frozen=True)
class Asked:
    """Comparisons that a rule was asked about."""

    kernels: Places
    """[comparison]"""
    said: Said
    families: Flags
    """[family, cell]: whether it is called slower."""


def needed(rule: Rule) -> int:
    """Processes that a comparison takes of the pool."""
    return rule.processes * (1 if rule.placement == "same" else 2)


def possible(rule: Rule, pool: Pool) -> bool:
    """Whether the pool has enough processes for the rule."""
    return needed(rule) <= pool.processes


def ask(rule: Rule, pool: Pool, variant: str, rng: np.random.Generator, families: int) -> Asked:
    """Comparisons of a variant with its base, and families of them.

    Of "in turn" all that there are, wherever in the pool they begin, and families drawn from them; else kernel and processes
    of each cell are drawn anew.
    """
    if rule.placement == "in turn":
        starts = np.arange(pool.processes - needed(rule) + 1)
        kernels = np.repeat(np.arange(len(pool.kernels)), len(starts))
        taken = np.tile(starts, len(pool.kernels))[:, None] + np.arange(needed(rule))
        said = _said(rule, pool, variant, kernels, taken)
        return Asked(kernels, said, said.slower[rng.integers(len(kernels), size=(families, CELLS))])
    kernels = rng.integers(len(pool.kernels), size=families * CELLS)
    said = _said(rule, pool, variant, kernels, choose(rng, kernels.shape, pool.processes, needed(rule)))
    return Asked(kernels, said, said.slower.reshape(families, CELLS))


def _said(rule: Rule, pool: Pool, variant: str, kernels: Places, taken: Places) -> Said:
    """What a rule says of [comparison] kernels and [comparison, process]: first the base's, then the candidate's, or both in one."""
    parts = [
        rule.says(*_values(rule, pool, variant, kernels[start : start + CHUNK], taken[start : start + CHUNK]))
        for start in range(0, len(kernels), CHUNK)
    ]
    return Said(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _values(rule: Rule, pool: Pool, variant: str, kernels: Places, taken: Places) -> tuple[Array, Array]:
    """[comparison, process, sample] of base and candidate; for the paired rule log ratios, and 0 for the base.

    The candidate's are by the constant factor that makes its mean ratio exactly its name.
    """
    of_base, of_other = taken[:, : rule.processes], taken[:, -rule.processes :]
    if rule.says is _of_logs:
        found = pool.named(variant)[kernels[:, None], of_other][..., None]
        return np.zeros_like(found), found
    base = pool.samples_s[kernels[:, None], VARIANTS.index(BASE), of_base].astype(float)
    other = pool.samples_s[kernels[:, None], VARIANTS.index(variant), of_other].astype(float)
    other *= np.exp(pool.correction(variant))[kernels, None, None]
    return base, other


def agreement(pool: Pool, rng: np.random.Generator, times: int = 50) -> str:
    """Whether the tools themselves say the same as the formulas here, in a sentence; also that a tool is not installed."""
    said = []
    for name, loaded in ((MEDIAN, _theirs_median), (PYPERF, _theirs_pyperf), (VALUES, _theirs_pyperf_values)):
        rule = next(one for one in RULES if one.name == name and one.placement == "apart")
        if not possible(rule, pool):
            continue
        try:
            theirs = loaded()
        except ImportError:
            said.append(f"{rule.of.partition(',')[0]} is not installed: its “{name}” was not compared with its code")
            continue
        kernels = rng.integers(len(pool.kernels), size=times)
        taken = choose(rng, kernels.shape, pool.processes, needed(rule))
        base, other = _values(rule, pool, VARIANTS[2], kernels, taken)
        ours = rule.says(base, other)
        field = ours.slower if name == MEDIAN else ours.different
        same = sum(bool(mine) == theirs(a.tolist(), b.tolist()) for mine, a, b in zip(field, base, other, strict=True))
        said.append(f"{rule.of.partition(',')[0]}'s own code says the same as “{name}” in {same} of {times} comparisons")
    return "; ".join(said)


OfProcesses = list[list[float]]
"""[process][sample]"""
Theirs = Callable[[OfProcesses, OfProcesses], bool]


def _theirs_median() -> Theirs:
    from pytest_benchmark.utils import parse_compare_fail

    check: Any = parse_compare_fail("median:5%")  # type: ignore[no-untyped-call,unused-ignore]

    def fails(base: OfProcesses, other: OfProcesses) -> bool:
        return check.fails({"median": float(np.median(other))}, {"median": float(np.median(base))}) is not None

    return fails


def _theirs_pyperf() -> Theirs:
    from pyperf import Benchmark, Run
    from pyperf._utils import is_significant

    def differ(base: OfProcesses, other: OfProcesses) -> bool:
        sides = (
            Benchmark([Run(values, metadata={"name": "x"}, collect_metadata=False) for values in side]).get_values()
            for side in (base, other)
        )
        return bool(is_significant(*sides)[0])

    return differ


def _theirs_pyperf_values() -> Theirs:
    """Three values of each process, each the mean over as many calls as pyperf would have run in its loop."""
    differ = _theirs_pyperf()

    def three(side: OfProcesses) -> OfProcesses:
        found: OfProcesses = _thirds(np.array(side)).tolist()
        return found

    return lambda base, other: differ(three(base), three(other))
