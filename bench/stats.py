"""Medians, intervals, paired ratios and the rules when to stop sampling: numpy and scipy, no torch.

The interval of one process says how well *that* process was measured; identical code in fresh processes differs by several
times as much. So intervals are over processes as soon as there are three, and never over pooled samples of many.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .manifest import Protocol
    from .records import Process

MIN_PROCESSES = 3
"""From this many processes on, an interval is over processes."""
TIE_MARGIN = 0.02
"""Two kernels whose ratio may be this close to 1 are not called faster or slower."""
WARMUP_WINDOWS = 3
"""So many warm-up windows in a row must agree."""


class Interval(NamedTuple):
    """An estimate and a range that covers the true value with the confidence asked for."""

    estimate: float
    low: float
    """NaN where the samples say nothing about their own spread (there is only one)."""
    high: float

    @property
    def half_width(self) -> float:
        """Half the range as a fraction of the estimate; infinite where the range is unknown."""
        if math.isnan(self.low) or math.isnan(self.high):
            return math.inf
        width = (self.high - self.low) / 2
        return 0.0 if width == 0 else width / abs(self.estimate) if self.estimate else math.inf


def median_interval(samples: Sequence[float], confidence: float = 0.95) -> Interval:
    """The median with an interval between two of the samples, right for samples of any distribution.

    Too few samples for such an interval (under 6 at 95 %) get Student's instead, widened to hold all of them; a single
    sample gets an interval of NaN. Raises ValueError when there is none.
    """
    return _interval_of_sorted(sorted(samples), confidence)


def percentile(samples: Sequence[float], percent: float) -> float:
    """The value that `percent` of 100 samples do not exceed, interpolated. Raises ValueError when there are no samples."""
    _require(samples)
    return float(np.percentile(np.asarray(samples, dtype=float), percent))


def latency(processes: Sequence[Process], confidence: float = 0.95) -> Interval:
    """Seconds per call, with the interval that the number of processes allows.

    One or two processes: the median of all samples, its interval within_process. Three or more: the geometric mean of the
    processes' medians, with a t-interval over the logarithms. Processes without samples do not count. Raises ValueError
    when no sample is left.
    """
    logs = [_logs(process.samples_s) for process in processes if process.samples_s]
    _require(logs)
    if len(logs) >= MIN_PROCESSES:
        return _exponential(mean_interval([float(np.median(values)) for values in logs], confidence))
    pooled = np.concatenate(logs)
    _, low, high = _exponential(median_interval(pooled.tolist(), confidence))
    estimate = float(np.median([sample for process in processes for sample in process.samples_s]))
    return Interval(estimate, low, high)


def paired_speedup(a: Sequence[Process], b: Sequence[Process], confidence: float = 0.95) -> Interval:
    """The time of `b` divided by the time of `a`, so above 1 `a` is the faster; paired by worker and round.

    Samples of one round were taken within moments of each other, so what slowed one slowed both, and their ratio stays.
    Per process the median over common rounds of ln t_b - ln t_a. Three or more processes: a t-interval over these. One or
    two: the median and interval of the rounds themselves, pooled, since two processes say next to nothing about
    a third. Raises ValueError when no worker process took samples of both in one round.
    """
    paired = _paired(a, b)
    if not paired:
        raise ValueError("no common rounds: the two were not sampled side by side, so their times cannot be paired")
    if len(paired) >= MIN_PROCESSES:
        return _exponential(mean_interval([float(np.median(ratios)) for ratios in paired], confidence))
    return _exponential(median_interval([ratio for ratios in paired for ratio in ratios], confidence))


def paired_medians(a: Sequence[Process], b: Sequence[Process]) -> list[float]:
    """Per process that took samples of both in one round, in the order of `a`: the median over those rounds of ln t_b - ln t_a."""
    return [float(np.median(ratios)) for ratios in _paired(a, b)]


def is_tie(interval: Interval, margin: float = TIE_MARGIN) -> bool:
    """Whether a ratio may lie within `margin` of 1: then neither side is called the winner. Unknown bounds are a tie."""
    return not (interval.low > 1 + margin or interval.high < 1 / (1 + margin))


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The mean with Student's t-interval; a single value gets an interval of NaN. Raises ValueError when there is none."""
    _require(values)
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan)
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
    reach = _student(len(values) - 1, confidence) * error
    return Interval(mean, mean - reach, mean + reach)


def geometric_mean(values: Iterable[float]) -> float:
    """The mean that suits ratios. Raises ValueError when there are no values, or one is not above 0."""
    logs = _logs(list(values))
    _require(logs)
    return math.exp(math.fsum(logs) / len(logs))


class StoppingRule:
    """Says when one kernel has been sampled enough, by a protocol; fed with every sample as it is taken."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.busy_s = 0.0
        """Time spent in samples so far."""
        self._ordered: list[float] = []

    def add(self, seconds_per_call: float, busy_s: float) -> None:
        """Take note of a sample, and of the time that it took in all."""
        insort(self._ordered, seconds_per_call)
        self.busy_s += busy_s

    def forget(self, seconds_per_call: float) -> None:
        """Take a sample back that does not count after all. The time that it took was spent: it still counts to the cap.

        Raises ValueError when there is no such sample.
        """
        place = bisect_left(self._ordered, seconds_per_call)
        if self._ordered[place : place + 1] != [seconds_per_call]:
            raise ValueError(f"{seconds_per_call} is none of the {len(self._ordered)} samples: only what was added can be forgotten")
        del self._ordered[place]

    @property
    def reached(self) -> float:
        """Half-width of the median's interval so far, as a fraction; infinite before the second sample."""
        return _interval_of_sorted(self._ordered).half_width if self._ordered else math.inf

    @property
    def reason(self) -> str | None:
        """Why sampling may stop: "target reached" or "cap"; None while it should go on."""
        protocol = self.protocol
        enough = len(self._ordered) >= protocol.min_samples and self.busy_s >= protocol.min_total_s
        if enough and self.reached <= protocol.target:
            return "target reached"
        return "cap" if self.busy_s and self.busy_s >= protocol.cap_s else None

    @property
    def is_finished(self) -> bool:
        return self.reason is not None


class WarmUp:
    """Says when one kernel is warm, by a protocol; fed with windows of calls that are timed but not kept."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.busy_s = 0.0
        """Time spent in windows so far."""
        self._windows: list[float] = []

    def add(self, window_seconds_per_call: float, busy_s: float) -> None:
        """Take note of a window, and of the time that it took in all."""
        self._windows = [*self._windows, window_seconds_per_call][-WARMUP_WINDOWS:]
        self.busy_s += busy_s

    @property
    def stable(self) -> bool:
        """Whether the last windows agree: the slowest is slower than the fastest by no more than the protocol allows."""
        if len(self._windows) < WARMUP_WINDOWS:
            return False
        slowest, fastest = max(self._windows), min(self._windows)
        return slowest <= fastest * (1 + self.protocol.warmup_agreement)

    @property
    def is_finished(self) -> bool:
        """Warm, or out of patience; `stable` tells which."""
        protocol = self.protocol
        return (self.stable and self.busy_s >= protocol.warmup_s) or self.busy_s >= protocol.warmup_cap_s


def _interval_of_sorted(ordered: Sequence[float], confidence: float = 0.95) -> Interval:
    _require(ordered)
    count = len(ordered)
    middle = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    outside = _samples_outside(count, confidence)
    if outside:
        return Interval(middle, ordered[outside - 1], ordered[count - outside])
    _, low, high = mean_interval(ordered, confidence)
    return Interval(middle, min(low, ordered[0]), max(high, ordered[-1])) if count > 1 else Interval(middle, low, high)


@lru_cache(maxsize=4096)
def _samples_outside(count: int, confidence: float) -> int:
    """The k for which the k-th smallest and the k-th largest of `count` samples are the ends; 0 when none are far enough.

    The median lies outside with twice the probability that fewer than k of `count` coin tosses show heads.
    """
    from scipy import special  # a third of a second that those who only want a class need not pay

    tail = (1 - confidence) / 2
    outside = max(0, int(count / 2 + special.ndtri(tail) * math.sqrt(count) / 2))  # nearly right: a step or two is left
    while special.bdtr(outside, count, 0.5) <= tail:
        outside += 1
    while outside and special.bdtr(outside - 1, count, 0.5) > tail:
        outside -= 1
    return outside


@lru_cache(maxsize=256)
def _student(degrees: int, confidence: float) -> float:
    """Student's t: the quantile that a two-sided interval reaches to."""
    from scipy import special

    return float(special.stdtrit(degrees, (1 + confidence) / 2))


def _by_worker(processes: Sequence[Process]) -> dict[tuple[int, int], Process]:
    """Processes by worker number, and by order where several have the same (runs that do not number their workers)."""
    found: dict[tuple[int, int], Process] = {}
    for process in processes:
        found[process.worker, sum(worker == process.worker for worker, _ in found)] = process
    return found


def _paired(a: Sequence[Process], b: Sequence[Process]) -> list[list[float]]:
    """ln t_b - ln t_a round by round, for each process that has common rounds."""
    workers, others = _by_worker(a), _by_worker(b)
    return [ratios for key, one in workers.items() if key in others and (ratios := _log_ratios(one, others[key]))]


def _log_ratios(a: Process, b: Process) -> list[float]:
    """ln t_b - ln t_a of each round that both have, in order of rounds; several samples of a round count as their median."""
    times_a, times_b = _log_rounds(a), _log_rounds(b)
    return [times_b[number] - times_a[number] for number in sorted(times_a.keys() & times_b.keys())]


def _log_rounds(process: Process) -> dict[int, float]:
    by_round: dict[int, list[float]] = {}
    for number, value in zip(process.rounds, _logs(process.samples_s), strict=True):
        by_round.setdefault(number, []).append(float(value))
    return {number: values[0] if len(values) == 1 else float(np.median(values)) for number, values in by_round.items()}


def _logs(values: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    array = np.asarray(values, dtype=np.float64)
    if not (array > 0).all():
        raise ValueError(f"{array[~(array > 0)][0]} is not a time or ratio above 0: its logarithm is undefined")
    return np.log(array)


def _exponential(interval: Interval) -> Interval:
    with np.errstate(over="ignore"):  # two samples far apart: the interval reaches to infinity
        return Interval(*(float(np.exp(value)) for value in interval))


def _require(values: Sequence[object] | np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    if not len(values):
        raise ValueError("no samples: nothing was measured here")
