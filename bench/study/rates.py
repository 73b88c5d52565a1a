"""What the study comes to: plain records of counts, as they are written to study.json, and the goals. No torch."""

from __future__ import annotations

import math

import msgspec

from ..comparison import Terms
from .samples import About

SCHEMA_VERSION = 1
BOUND = 0.95
"""Confidence of upper bounds."""
MOST_FALSE = 0.01
"""Goal: false alarms per family, with the bound."""
LEAST_SEEN = {0.10: 0.95, 0.05: 0.80}
"""Goal: slowdown -> share of cells that must be called regressed at the first look, of 8 or 12 processes …"""
PROMISED = ("≤ 1 %", "≤ 2 %")
"""… where the pair spread of the kernel, its copy against the base in the whole pool, is of these classes."""


class Rate(msgspec.Struct, frozen=True):
    """So many of so many."""

    count: int
    of: int

    @property
    def share(self) -> float:
        """NaN of none."""
        return self.count / self.of if self.of else math.nan

    @property
    def upper(self) -> float:
        """One-sided 95 % upper bound were all of them independent (Clopper and Pearson 1934); 1 of none."""
        if self.count >= self.of:
            return 1.0
        from scipy import stats

        return float(stats.beta.ppf(BOUND, self.count + 1, self.of - self.count))


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """What the pool says of one kernel."""

    name: str
    label: str
    median_s: float
    between_processes: float
    """Standard deviation between processes of the logarithm of its own median: what an unpaired comparison is up against …"""
    spread: float
    """… and of the log ratio to its copy: what a paired one is."""
    copy_ratio: float
    """Time of the copy divided by that of the base, over all processes, with its 95 % interval."""
    copy_low: float
    copy_high: float
    kurtosis: float | None
    """Excess kurtosis of the log ratios to the copy: 0 for normal ones."""
    autocorrelation: float | None
    """Of the log ratio of one process with the next one's."""
    ratios: dict[str, float]
    """Variant -> its time divided by the base's, as it was measured: the study takes each for exactly what its name says."""
    spreads: dict[str, float]
    """Variant -> standard deviation between processes of its log ratio."""


class Disjoint(msgspec.Struct, frozen=True, kw_only=True):
    """False alarms where no two cells share a process."""

    processes: int
    """Of each cell, one measured after the other."""
    looks: int
    families: Rate
    cells: Rate
    """All of them, those beyond the last whole family too."""


class FalseAlarms(msgspec.Struct, frozen=True, kw_only=True):
    """What is said where nothing changed."""

    families: Rate
    """Families with any cell called regressed in the end …"""
    first_look: Rate
    """… and at the first look."""
    improved: Rate
    """Families with any cell called improved in the end …"""
    improved_cells: Rate
    """… and cells."""
    upper: float
    """95 % upper bound of the rate of families, by bootstrap over processes."""
    resampled: Rate
    """Families with an alarm in all pools drawn anew."""
    replicates: int
    """How many pools were drawn anew."""
    disjoint: list[Disjoint]
    words: dict[str, int]
    """Word -> cells."""
    exit_codes: dict[str, int]
    """Exit code -> families."""
    canaries: Rate
    """Canaries that say that equal kernels differ."""
    canary_families: Rate
    unchanged: Rate
    """Families with any cell called regressed or improved in the end, where improvements get a second look, too: with --all …"""
    unchanged_exit_codes: dict[str, int]
    """… and exit code -> families then."""

    @property
    def bound(self) -> float:
        """The bound that the goal is held against: the greater of that of the bootstrap and that of so few families."""
        return max(self.upper, self.families.upper)


class Detection(msgspec.Struct, frozen=True, kw_only=True):
    """How often cells that are slower by a known share are called regressed."""

    slowdown: float
    slowed: str
    """Whether one or all cells of the family were slowed."""
    what: str
    """A kernel, or a class of spreads that the comparison itself saw at its first look."""
    spread: float | None
    """Of the slowed kernel's log ratio in the whole pool; None for a class."""
    spread_class: str
    """By the spread of the kernel's copy in the pool, the same for all its variants."""
    first_look: Rate
    final: Rate


class Codes(msgspec.Struct, frozen=True, kw_only=True):
    """What CI is told where something is slower."""

    slowdown: float
    slowed: str
    exit_codes: dict[str, int]
    """Exit code -> families."""
    canary_families: Rate
    """With a canary that says that equal kernels differ."""


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Another rule on the same data."""

    rule: str
    of: str
    processes: int
    placement: str
    """"same": both sides in the same processes; "in turn": the candidate's processes right after the base's; "apart": any."""
    reason: str | None = None
    """Why nothing is told."""
    cells: Rate | None = None
    """Equal kernels called slower …"""
    different: Rate | None = None
    """… or different, either way …"""
    families: Rate | None = None
    """… and families with any that is called slower."""
    cells_by_kernel: dict[str, Rate] = {}
    detection: dict[str, Rate] = {}
    """Slowdown -> slowed kernels called slower."""
    detection_by_kernel: dict[str, dict[str, Rate]] = {}


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    schema: int = SCHEMA_VERSION
    version: str
    created: str
    """ISO 8601, UTC."""
    pool: About
    processes: int
    kernels: list[Kernel]
    terms: Terms
    seed: int
    families: int
    """Of each condition."""
    cells: int
    """Of each family."""
    false_alarms: FalseAlarms
    detection: list[Detection]
    by_seen_spread: list[Detection]
    codes: list[Codes]
    peers: list[Peer]
    agreement: str
    """Whether other tools' own code says the same as their formulas here."""
    analysed_s: float

    @property
    def missed(self) -> list[str]:
        """The goals that were not reached, each in a sentence."""
        found = []
        false = self.false_alarms
        if false.families.share > MOST_FALSE or not false.bound <= MOST_FALSE:
            found.append(
                f"false alarms: {false.families.share:.2%} of families, at most {false.bound:.2%} (goal: at most {MOST_FALSE:.0%})"
            )
        if not any(one.spread_class in PROMISED for one in self.detection):
            found.append(f"no kernel scatters by {' or '.join(PROMISED)} here: nothing of the promised detection was shown")
        for one in self.detection:
            least = LEAST_SEEN.get(one.slowdown)
            if least is not None and one.spread_class in PROMISED and one.first_look.share < least:
                found.append(
                    f"{one.what} slower by {one.slowdown:.0%} ({one.slowed} of {self.cells} cells): "
                    f"seen in {one.first_look.share:.1%} at the first look (goal: {least:.0%}), in {one.final.share:.1%} in the end"
                )
        return found
