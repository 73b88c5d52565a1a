"""Can the samples of one contender be believed? Warnings, throttling, and rates that the machine cannot reach."""

from __future__ import annotations

import statistics

from .contender import Contender
from .instruments.watch import Reading, others_share, stolen_share
from .manifest import Protocol
from .records import Case, Ceilings, Distance, Warn

PLAUSIBLE = 1.15
"""A rate this much above the measured ceiling is a bug in the measurement or in the FLOP count."""
AS_GOOD_AS_EXACT = 1e-3
"""Relative rms distance below which an approximate kernel must have done the exact work."""
CACHE_MULTIPLE = 4
"""The byte rule of plausibility holds only where the working set is this many times the last-level cache."""
MOST_DROPPED = 0.2
"""With a larger share of throttled rounds a measurement is invalid."""

MOST_STOLEN = 0.02
"""With a larger share of the processors' time given to other virtual machines, or …"""
MOST_OTHERS = 0.05
"""… taken by other processes, the samples are called disturbed."""


def warnings(contender: Contender, protocol: Protocol, *, stopped: bool) -> list[Warn]:
    """What a reader should know about these samples, each with what to do about it."""
    found = []
    if not contender.warm.stable:
        found.append(Warn("unstable", "the warm-up did not settle: run longer (--protocol full) or on a quieter machine"))
    samples, reached = len(contender.samples), contender.rule.reached
    if samples < protocol.min_samples:
        why = "the run was stopped" if stopped else "the time for one case was up"
        found.append(Warn("few-samples", f"{samples} of {protocol.min_samples} samples: {why} before more were taken"))
    elif reached > protocol.target:
        known = f"the median is known to ±{reached:.1%} only (asked: ±{protocol.target:.1%})"
        found.append(Warn("wide-interval", f"{known} after {samples} samples: run longer (--protocol full) or on a quieter machine"))
    if gaps := sum(not sample.held for sample in contender.samples):
        text = f"in {gaps} of {samples} samples the calls could not be queued ahead: gaps between launches are part of the device time"
        found.append(Warn("launch-gaps", f"{text}; compare the host latency"))
    return found


def disturbances(before: Reading, after: Reading) -> list[Warn]:
    """What came from outside between the first round and the last, for all kernels of the group alike."""
    causes = []
    if (stolen := stolen_share(before, after)) is not None and stolen > MOST_STOLEN:
        causes.append(f"{stolen:.1%} of the processors' time went to other virtual machines")
    if (others := others_share(before, after)) is not None and others > MOST_OTHERS:
        causes.append(
            f"{others:.0%} of it went to other processes" if causes else f"{others:.0%} of the processors' time went to other processes"
        )
    return [Warn("disturbed", f"{' and '.join(causes)} during the rounds: measure on a quieter machine")] if causes else []


def throttled(contender: Contender, dropped_rounds: int) -> str | None:
    """A sentence when too many rounds were dropped because the device throttled."""
    rounds = len({sample.round for sample in contender.samples}) + dropped_rounds
    if dropped_rounds > MOST_DROPPED * rounds:
        lost = f"{dropped_rounds} of {rounds} rounds were dropped because the device throttled"
        return f"{lost}: let it cool, lower its load, or raise the container's CPU quota"
    return None


def implausible(case: Case, samples_s: list[float], ceilings: Ceilings | None, distance: Distance | None = None) -> str | None:
    """A sentence when an exact kernel beats what this machine was measured to do; None when it does not.

    Approximate kernels do less than the counted work on purpose: the rule says nothing about them, unless their answers
    can hardly be told from the exact ones.
    """
    exact = not case.approximate or (distance is not None and distance.relative_rms < AS_GOOD_AS_EXACT)
    if ceilings is None or not exact or not samples_s:
        return None
    seconds = statistics.median(samples_s)
    rate, top = case.flops / seconds, ceilings.matmul_rate(case.dtype)
    if top and rate > PLAUSIBLE * top:
        reached = f"{rate / 1e9:.4g} GFLOP/s, but this machine's matmul reaches {top / 1e9:.4g}"
        return f"implausible: {reached}: the measurement or the FLOP count is wrong"
    moved, cache = case.min_bytes / seconds, ceilings.last_level_cache_bytes or 0
    if case.min_bytes > CACHE_MULTIPLE * cache and moved > PLAUSIBLE * ceilings.copy_bytes_per_s:
        copied = ceilings.copy_bytes_per_s / 1e9
        return f"implausible: {moved / 1e9:.4g} GB/s, but this machine copies {copied:.4g}: the measurement or the byte count is wrong"
    return None
