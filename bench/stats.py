"""Medians, intervals and paired ratios: plain Python and scipy, no torch.

The interval of one process says how well *that* process was measured; identical code in fresh processes differs by several
times as much. So intervals are over processes as soon as there are three, and never over pooled samples of many.

A process has some dozens of samples: numpy's functions would spend more time on being called than on them.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .records import Process

MIN_PROCESSES = 3
"""From this many processes on, an interval is over processes."""
TIE_MARGIN = 0.02
"""Two kernels whose ratio may be this close to 1 are not called faster or slower."""

Rounds = dict[tuple[int, int], dict[int, float]]
"""(Worker, how many processes of that worker came before) -> round -> seconds per call."""


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
    return interval_of_sorted(sorted(samples), confidence)


def interval_of_sorted(ordered: Sequence[float], confidence: float = 0.95) -> Interval:
    """`median_interval` of samples that are sorted already."""
    _require(ordered)
    count = len(ordered)
    middle = _middle(ordered)
    outside = _samples_outside(count, confidence)
    if outside:
        return Interval(middle, ordered[outside - 1], ordered[count - outside])
    _, low, high = mean_interval(ordered, confidence)
    return Interval(middle, min(low, ordered[0]), max(high, ordered[-1])) if count > 1 else Interval(middle, low, high)


def percentile(samples: Sequence[float], percent: float) -> float:
    """The value that `percent` of 100 samples do not exceed, interpolated as numpy does. Raises ValueError when there are none."""
    _require(samples)
    if not 0 <= percent <= 100:
        raise ValueError(f"{percent} is no percentile: it must lie between 0 and 100")
    ordered = sorted(samples)
    place = (len(ordered) - 1) * (percent / 100)
    below = int(place)
    if below >= len(ordered) - 1:
        return float(ordered[-1])
    low, high, share = ordered[below], ordered[below + 1], place - below
    return low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)


def latency(processes: Sequence[Process], confidence: float = 0.95) -> Interval:
    """Seconds per call, with the interval that the number of processes allows.

    One or two processes: the median of all samples, its interval within_process. Three or more: the geometric mean of the
    processes' medians, with a t-interval over the logarithms. Processes without samples do not count. Raises ValueError
    when no sample is left.
    """
    return latency_of_sorted([sorted(process.samples_s) for process in processes if process.samples_s], confidence)


def latency_of_sorted(taken: Sequence[list[float]], confidence: float = 0.95) -> Interval:
    """`latency` of the samples of each process, sorted already; none of them empty."""
    _require(taken)
    if len(taken) >= MIN_PROCESSES:
        return _over_processes(taken, confidence)
    pooled = taken[0] if len(taken) == 1 else sorted(chain(*taken))
    _require_positive(pooled)
    _, low, high = _within(pooled, confidence)
    return Interval(_middle(pooled), low, high)


def paired_speedup(a: Sequence[Process], b: Sequence[Process], confidence: float = 0.95) -> Interval:
    """The time of `b` divided by the time of `a`, so above 1 `a` is the faster; paired by worker and round.

    Samples of one round were taken within moments of each other, so what slowed one slowed both, and their ratio stays.
    Per process the median over common rounds of ln t_b - ln t_a. Three or more processes: a t-interval over these. One or
    two: the median and interval of the rounds themselves, pooled, since two processes say next to nothing about
    a third. Raises ValueError when no worker process took samples of both in one round.
    """
    return speedup(rounds(a), rounds(b), confidence)


def speedup(a: Rounds, b: Rounds, confidence: float = 0.95) -> Interval:
    """`paired_speedup` of what `rounds` made of two kernels: for those that are paired with several others."""
    paired = _paired(a, b)
    if not paired:
        raise ValueError("no common rounds: the two were not sampled side by side, so their times cannot be paired")
    if len(paired) >= MIN_PROCESSES:
        return _over_processes(paired, confidence)
    return _within(paired[0] if len(paired) == 1 else sorted(chain(*paired)), confidence)


def paired_medians(a: Sequence[Process], b: Sequence[Process]) -> list[float]:
    """Per process that took samples of both in one round, in the order of `a`: the median over those rounds of ln t_b - ln t_a."""
    return [math.log(_geometric_middle(ratios)) for ratios in _paired(rounds(a), rounds(b))]


def rounds(processes: Sequence[Process]) -> Rounds:
    """What pairing needs of one kernel: its seconds in each round of each process; of several samples the median of logarithms.

    A process is known by its worker's number, and by order where several have the same (runs that do not number their
    workers). Raises ValueError when a sample is no time above 0.
    """
    found: Rounds = {}
    for process in processes:
        found[process.worker, sum(worker == process.worker for worker, _ in found)] = _round_times(process)
    return found


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


def _middle(ordered: Sequence[float]) -> float:
    """The median of what is sorted already."""
    count = len(ordered)
    return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2


def _geometric_middle(ordered: Sequence[float]) -> float:
    """The exponential of the median of logarithms: of an even number, the geometric mean of the two in the middle."""
    count = len(ordered)
    low, high = ordered[(count - 1) // 2], ordered[count // 2]
    return low if low == high else math.sqrt(low) * math.sqrt(high)


def _over_processes(ordered: Iterable[Sequence[float]], confidence: float) -> Interval:
    """The geometric mean of the medians of several processes, with a t-interval over the logarithms."""
    return _exponential(mean_interval(_logs([_geometric_middle(values) for values in ordered]), confidence))


def _within(ordered: Sequence[float], confidence: float) -> Interval:
    """What `median_interval` says of the logarithms, and back: as long as its ends are samples, none need be taken."""
    outside = _samples_outside(len(ordered), confidence)
    if outside:
        return Interval(_geometric_middle(ordered), ordered[outside - 1], ordered[-outside])
    return _exponential(interval_of_sorted(_logs(ordered), confidence))


def _paired(a: Rounds, b: Rounds) -> list[list[float]]:
    """t_b / t_a of the rounds that both have, sorted, for each process that has such rounds."""
    return [ratios for key, one in a.items() if (other := b.get(key)) and (ratios := _ratios(one, other))]


def _ratios(a: dict[int, float], b: dict[int, float]) -> list[float]:
    return sorted([b[number] / seconds for number, seconds in a.items() if number in b])


def _round_times(process: Process) -> dict[int, float]:
    if process.samples_s:
        _require_positive(process.samples_s)
    found = dict(zip(process.rounds, process.samples_s, strict=True))
    if len(found) == len(process.rounds):  # one sample a round: nothing to gather
        return found
    gathered: dict[int, list[float]] = {}
    for number, seconds in zip(process.rounds, process.samples_s, strict=True):
        gathered.setdefault(number, []).append(seconds)
    return {number: _geometric_middle(sorted(taken)) for number, taken in gathered.items()}


def _logs(values: Sequence[float]) -> list[float]:
    if values:
        _require_positive(values)
    return list(map(math.log, values))


def _require_positive(values: Sequence[float]) -> None:
    if not min(values) > 0 or math.isnan(sum(values)):  # wherever a NaN stands, the sum is one
        bad = next(value for value in values if not value > 0)
        raise ValueError(f"{float(bad)} is not a time or ratio above 0: its logarithm is undefined")


def _exponential(interval: Interval) -> Interval:
    return Interval(*map(_exp, interval))


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:  # two samples far apart: the interval reaches to infinity
        return math.inf


def _require(values: Sequence[object]) -> None:
    if not len(values):
        raise ValueError("no samples: nothing was measured here")
