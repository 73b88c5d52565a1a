"""Verdict and Outcome: what came of a comparison, as it is written to verdict.json. No torch, no kernels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from .comparison import Form, Side, Terms

if TYPE_CHECKING:
    from collections.abc import Iterable

SCHEMA_VERSION = 1
"""Of verdict.json: raised when a reader of the old one would misunderstand the new one; new fields do not raise it."""

Word = Literal["REGRESSED", "IMPROVED", "SAME", "INCONCLUSIVE", "INVALID", "FAILED", "MISSING", "NEW"]
WORDS: tuple[Word, ...] = ("REGRESSED", "FAILED", "MISSING", "INVALID", "INCONCLUSIVE", "IMPROVED", "NEW", "SAME")
"""In the order in which people want to see them."""
EXIT_FINE, EXIT_REGRESSED, EXIT_USAGE, EXIT_NOT_COMPARABLE, EXIT_TOO_NOISY, EXIT_CASES, EXIT_INTERRUPTED = 0, 1, 2, 3, 4, 5, 130


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """Time of one thing divided by the time of another, over processes. Above 1 the candidate (or the copy) is slower."""

    ratio: float
    low: float
    high: float
    """Of the two-sided 95 % interval over processes."""
    spread: float
    """Standard deviation between processes of the log ratio: 0.01 is about 1 %."""
    processes: int
    margin: float
    """By which it had to differ from 1 to count."""
    p_slower: float
    """Chance of such a result, were it slower by just the margin; before Holm's correction."""
    p_faster: float
    """Likewise for faster."""
    base_s: float
    """Median seconds per call, over processes."""
    other_s: float
    differences: list[float] = []
    """Natural logarithm of the ratio, process by process, in the order in which they were measured."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A quantity that is not a time, on both sides."""

    base: float | None
    candidate: float | None
    unit: str
    """"B", "naive errors", "J"."""
    word: Word
    reason: str
    """A sentence: what differs and by how much, or why nothing can be said."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One cell, compared."""

    cell: str
    operator: str
    kernel: str
    """The candidate's."""
    base_kernel: str
    label: str
    device: str
    problem: dict[str, Any]
    word: Word
    fails: bool
    """Whether this cell fails the comparison."""
    reason: str
    """One sentence: why this word."""
    latency: Ratio | None = None
    """Candidate against base; None where one of them has no time."""
    latency_word: Word | None = None
    changes: dict[str, Change] = {}
    """"memory", "errors", "energy" -> what became of it."""
    canary: Ratio | None = None
    """A second copy of the base against the base."""
    advisory: bool = False
    """True where the cell scatters so much that only a large change fails the comparison."""
    approximate: bool = False
    """True where the candidate computes something else on purpose: its distance from the exact result is among `changes`."""
    unchanged: bool = False
    """True where the kernel is made of the same source on both sides."""
    adjacent: str | None = None
    """Why the sides were measured in adjacent processes instead of one."""
    source: str | None = None
    """The candidate's file, relative to the repository: "kernels/attention/fused.py"; None for a file of --load."""
    looks: int = 1
    power: float | None = None
    """Chance to have seen a slowdown of 5 %, with this many processes and this scatter."""


def worst_first(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """What fails the comparison, then in the order of WORDS, then by how much the time differs."""

    def rank(verdict: Verdict) -> tuple[bool, int, float]:
        ratio = verdict.latency.ratio if verdict.latency else 1.0
        change = abs(math.log(ratio)) if 0 < ratio < math.inf else 0.0
        return not verdict.fails, WORDS.index(verdict.word), -change

    return sorted(verdicts, key=rank)


class Canary(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a base that was compared with its own copy."""

    cell: str
    kernel: str
    label: str
    ratio: Ratio | None
    word: Literal["SAME", "DIFFERS", "INCONCLUSIVE", "FAILED"]
    reason: str


class Mean(msgspec.Struct, frozen=True, kw_only=True):
    """Geometric mean of the ratios of an operator's cells that both sides have."""

    operator: str
    ratio: float
    cells: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The whole comparison."""

    schema: int = SCHEMA_VERSION
    version: str
    """Of kerneldyno."""
    created: str
    form: Form
    base: Side
    candidate: Side
    device_name: str
    terms: Terms
    verdicts: list[Verdict]
    """One per compared cell, in the order of WORDS, then by operator, kernel and size."""
    canaries: list[Canary] = []
    means: list[Mean] = []
    warnings: list[str] = []
    """Each a sentence: about the comparison as a whole."""
    changed: dict[str, str] = {}
    """Kernel -> which files of it differ between two commits, in a few words."""
    unchanged: tuple[str, ...] = ()
    """Kernels that were not compared, since nothing that they are made of differs."""
    left_out: list[str] = []
    """Cells that the budget left no time for: "attention/fused at 1x8x256x64"."""
    advisory: bool = False
    """True for a comparison of stored runs that gates nothing."""
    headline: str
    """One sentence."""
    sensitivity: str = ""
    """Which slowdown would have been seen with what chance: one sentence, empty where no time was compared."""
    exit_code: int
    meaning: str
    """What the exit code says, in a few words."""
    wall_s: float | None = None
    command: str = ""

    def count(self, word: Word) -> int:
        """Cells with this verdict."""
        return sum(verdict.word == word for verdict in self.verdicts)
