"""What the samples of a run come to: latency and speedup of every case, worked out once for all tables."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from kerneldyno.bench import stats
from kerneldyno.bench.journal import no_cycles
from kerneldyno.bench.stats import Interval

if TYPE_CHECKING:
    from kerneldyno.bench.journal import Run
    from kerneldyno.bench.records import Case, Measurement
    from kerneldyno.bench.stats import Rounds

ITSELF = Interval(1.0, 1.0, 1.0)


class Timing(NamedTuple):
    """What the samples of one case say; seconds per call."""

    latency: Interval
    p5_s: float
    p95_s: float
    speedup: Interval | None
    """Over the baseline, from paired rounds."""
    reason: str | None
    """Why there is no speedup."""


@no_cycles()
def timings(run: Run) -> dict[str, Timing]:
    """By case id, of all cases that are ok and have samples. Raises ValueError when a sample is no time above 0."""
    bases = {(case.group, case.kernel): case for case in run.cases}
    rounds: dict[str, Rounds] = {}  # of baselines, which are paired with every other kernel of their group
    found = {}
    for case in run.cases:
        measurement = run.measurements.get(case.id)
        if measurement is None or measurement.status != "ok":
            continue
        if taken := [sorted(process.samples_s) for process in measurement.processes if process.samples_s]:
            pooled = list(chain(*taken))
            speedup = _speedup(case, measurement, bases.get((case.group, case.baseline)), run, rounds)
            found[case.id] = Timing(stats.latency_of_sorted(taken), stats.percentile(pooled, 5), stats.percentile(pooled, 95), *speedup)
    return found


def _speedup(
    case: Case, measurement: Measurement, base: Case | None, run: Run, rounds: dict[str, Rounds]
) -> tuple[Interval | None, str | None]:
    """The speedup, or the reason why there is none."""
    if base is case:
        return ITSELF, None
    against = run.measurements.get(base.id) if base else None
    if base is None or against is None or against.status != "ok":
        return None, f"the baseline {case.baseline} {'was not measured' if against is None else f'is {against.status}'}"
    try:
        if base.id not in rounds:
            rounds[base.id] = stats.rounds(against.processes)
        return stats.speedup(stats.rounds(measurement.processes), rounds[base.id]), None
    except ValueError as error:
        return None, f"not paired with the baseline {case.baseline}: {error}"
