"""Who goes on to the finals, and whether a finalist replaces the default: statistics alone. No torch, no kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..records import Measurement
from ..stats import MIN_PROCESSES, Interval, latency, paired_medians, paired_speedup

FINALISTS = 4
"""Beside the default."""
MARGIN = 0.02
"""A heat is short: who may be so close to the fastest of it goes on."""
ALPHA = 0.05
"""Chance of replacing the default by something that is no faster, all finalists together."""


@dataclass(frozen=True)
class Verdict:
    """What the finals say."""

    winner: str | None
    """Name of the candidate that replaces the default; None: the default stays."""
    speedups: dict[str, Interval]
    """Of each finalist: time of the default divided by its own, with an interval that all of them together may rely on."""
    required: str
    """What one had to show, in a sentence."""


def finalists(default: Measurement, others: Mapping[str, Measurement], most: int = FINALISTS) -> list[str]:
    """The candidates that may be the fastest, fastest first: those that are clearly slower than the default or the best are out."""
    ranked = sorted(
        (name for name, found in others.items() if found.status == "ok"), key=lambda name: latency(others[name].processes).estimate
    )
    if not ranked:
        return []
    best = others[ranked[0]]
    return [name for name in ranked if not _slower(others[name], default) and not _slower(others[name], best)][:most]


def _slower(one: Measurement, other: Measurement) -> bool:
    """Whether the interval of their ratio lies beyond the margin; not known of two that were not sampled side by side."""
    if one is other or not paired_medians(one.processes, other.processes):
        return False
    return paired_speedup(one.processes, other.processes).high < 1 / (1 + MARGIN)


def verdict(default: Measurement, others: Mapping[str, Measurement]) -> Verdict:
    """The candidate with the largest speedup among those whose interval excludes 1.

    The finals are measured anew, so that luck in the heat counts for nothing; the share of ALPHA that each finalist has makes up for the
    choice among them (Bonferroni). Who was measured beside the default in fewer than three processes is no finalist: rounds of one process
    say nothing of the next.
    """
    found = {
        name: one
        for name, one in others.items()
        if one.status == "ok" and len(paired_medians(one.processes, default.processes)) >= MIN_PROCESSES
    }
    if not found:
        return Verdict(None, {}, "no candidate came close enough to the default in the heat and could be measured to the end")
    confidence = 1 - 2 * ALPHA / len(found)  # one-sided: only being faster counts
    speedups = {name: paired_speedup(one.processes, default.processes, confidence) for name, one in found.items()}
    faster = [name for name, ratio in speedups.items() if ratio.low > 1]
    winner = max(faster, key=lambda name: speedups[name].estimate, default=None)
    processes = len(default.processes)
    required = (
        f"faster than the default by more than the noise: over {processes} process{'es' * (processes != 1)} the interval of the ratio, "
        f"at {confidence:.4g} for one of {len(found)} finalists, lies above 1"
    )
    return Verdict(winner, speedups, required)
