"""Are times right? Calls of known length, known slowdowns, and copies of one kernel that must be called equal."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .. import stats
from . import pacing
from .findings import Control, Finding, Found
from .runs import measured

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..records import Measurement, Process
    from .context import Context

TOLERANCE = 0.01
"""A known time must be reported this closely …"""
ATTEMPTS = 3
"""… in one of so many runs."""
THETA = 0.02
"""A slowdown counts from here on: the one-sided 95 % lower bound of the ratio must lie above it."""
NEAR = 0.01
"""The estimate of a slowdown must come this close to it."""
PROCESSES, FEW_PROCESSES = 8, 4
TINY = {"batch": [1], "heads": [1], "seq_len": [16], "head_dim": [16]}
HEAD_DIMS = (64, 128)
"""Of the comparisons, at a length that torch gives to a single thread."""
NOT_HERE = "host time is known exactly, a GPU's is not: run the self-test with --device cpu"


class Judged(NamedTuple):
    """The ratio of two kernels' times over processes."""

    ratio: float
    low: float
    """Of the two-sided 95 % interval."""
    high: float
    bound: float
    """One-sided 95 % lower bound."""

    @property
    def slower(self) -> bool:
        return self.bound > 1 + THETA

    def __str__(self) -> str:
        return f"ratio {self.ratio:.4f} [{self.low:.4f}, {self.high:.4f}], lower bound {self.bound:.4f}"


def judged(base: Sequence[Process], other: Sequence[Process]) -> Judged:
    """The rule of comparisons: per process the median of paired log ratios, a t-interval over processes, a margin."""
    ratio, low, high = stats.paired_speedup(base, other)
    return Judged(ratio, low, high, stats.paired_speedup(base, other, confidence=0.9).low)


def known_times(context: Context) -> Iterator[Found]:
    """Calls that last 0.2, 1 and 5 ms by construction.

    Whatever else a machine is busy with can only make a call longer, so a time that was once reported right is right; a
    harness that reports wrongly does so every time.
    """
    if context.device.kind != "cpu":
        yield from (_untried("known times", name) for name in pacing.KNOWN_S)
        return
    left, attempts = list(pacing.KNOWN_S), 0
    while left and attempts < ATTEMPTS and not context.stop():
        attempts += 1
        context.say(f"calls of known length, run {attempts} of at most {ATTEMPTS}")
        run = measured("pacing.py", left, TINY, device="cpu", seed=context.seed, stop=context.stop, tick=context.tick)
        for name in list(left):
            caught, said = _reported(run.by_kernel.get(name), pacing.KNOWN_S[name])
            if (caught or attempts == ATTEMPTS) and not context.stop():
                left.remove(name)
                said = f"{said}, run {attempts}"
                yield Finding(section="known times", plant=f"{_words(name)}, exactly", where="a real run", caught=caught, said=said)


def _reported(found: Measurement | None, known_s: float) -> tuple[bool, str]:
    """Whether a known time was reported closely enough, and what was reported."""
    if found is None or found.status != "ok":
        return False, f"{found.status}: {found.reason}" if found else "no record of it"
    reported = stats.latency(found.processes).estimate
    return abs(reported / known_s - 1) <= TOLERANCE, f"reported {reported * 1e6:.2f} µs, {reported / known_s - 1:+.2%}"


def slowdowns(context: Context) -> Iterator[Found]:
    """Kernels slower by 2, 5 and 10 %, and copies of the base, in several fresh processes."""
    if context.device.kind != "cpu":
        yield from (_untried("slowdowns", name) for name in pacing.SLOWER)
        return
    copies = pacing.COPIES[:2] if context.short else pacing.COPIES
    shares = {name: share for name, share in pacing.SLOWER.items() if share > THETA or not context.short}
    for head_dim in HEAD_DIMS[:1] if context.short else HEAD_DIMS:
        if context.stop():
            return
        where = f"1×1×32×{head_dim}"
        context.say(f"slowdowns at {where}")
        axes = {"batch": [1], "heads": [1], "seq_len": [32], "head_dim": [head_dim]}
        processes = FEW_PROCESSES if context.short else PROCESSES
        run = measured(
            "pacing.py", (*copies, *shares), axes,
            device="cpu", seed=context.seed, processes=processes, stop=context.stop, tick=context.tick,
        )  # fmt: skip
        if not context.stop():
            yield from _compared(run.by_kernel, copies, shares, where, short=context.short)


def _compared(
    found: Mapping[str, Measurement], copies: Sequence[str], shares: Mapping[str, float], where: str, *, short: bool
) -> Iterator[Found]:
    bad = {name: one for name, one in found.items() if one.status != "ok"}
    for name, broken in bad.items():
        yield Finding(section="slowdowns", plant=_words(name), where=where, caught=False, said=f"{broken.status}: {broken.reason}")
    for name, share in shares.items():
        if {name, "base"} & bad.keys():
            continue
        seen = judged(found["base"].processes, found[name].processes)
        if share > THETA:
            must = share > 0.05 or not short  # few processes promise to see only the larger one
            yield Finding(section="slowdowns", plant=_words(name), where=where, caught=seen.slower, must=must, said=str(seen))
        else:
            yield Control(
                section="slowdowns", what=f"{_words(name)}: not beyond the margin", where=where, alarm=seen.slower, said=str(seen)
            )
        close = abs(seen.ratio / (1 + share) - 1) <= NEAR or seen.low <= 1 + share <= seen.high
        yield Finding(section="slowdowns", plant=f"{_words(name)}: the estimate", where=where, caught=close, must=not short, said=str(seen))
    equal = [name for name in copies if name not in bad]
    naive = 0
    for one, other in combinations(equal, 2):
        for a, b in ((one, other), (other, one)):
            seen = judged(found[a].processes, found[b].processes)
            yield Control(section="slowdowns", what=f"{a} against {b}", where=where, alarm=seen.slower, said=str(seen))
        naive += _pooled_difference(found[one], found[other])
    pairs = len(equal) * (len(equal) - 1) // 2
    said = f"calls {naive} of {pairs} pairs of copies different"
    rule = "the usual rule (Mann-Whitney on pooled samples) raises false alarms"
    yield Finding(section="slowdowns", plant=rule, where=where, caught=naive > 0, must=False, said=said)


def _pooled_difference(a: Measurement, b: Measurement) -> bool:
    """What most tools would say: the samples of all processes in one heap, p < 0.05."""
    from scipy.stats import mannwhitneyu

    return bool(mannwhitneyu(np.asarray(a.samples_s), np.asarray(b.samples_s)).pvalue < 0.05)


def _untried(section: str, name: str) -> Finding:
    return Finding(section=section, plant=_words(name), where="a real run", caught=None, said=NOT_HERE)


def _words(name: str) -> str:
    return name.replace("_us", " µs").replace("_percent", " %").replace("_", " ")
