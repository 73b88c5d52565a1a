"""Who is fastest at each problem, exact and approximate kernels in divisions of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from kerneldyno.bench import stats
from kerneldyno.bench.journal import no_cycles
from kerneldyno.bench.records import Case, Measurement
from kerneldyno.bench.stats import Interval

from .timings import ITSELF, Timing, timings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kerneldyno.bench.journal import Run

COLUMNS = [
    "operator", "device", "label", "batch", "seq_len", "dtype", "direction", "group", "division", "kernel", "family", "latency_s",
    "baseline", "speedup", "speedup_low", "speedup_high", "runner_up", "lead", "lead_low", "lead_high", "tie", "contestants",
]  # fmt: skip

Entry = tuple[Case, Measurement, Timing]


@no_cycles()
def winners(run: Run, timed: Mapping[str, Timing] | None = None) -> pd.DataFrame:
    """One row per problem, device and division ("exact", "approximate") in which some kernel is ok: the fastest.

    `lead` is the runner-up's time over the winner's, from paired rounds; `tie` says that its interval includes ± 2 %,
    or that the two could not be paired. A kernel alone in its division wins without a runner-up. `timed` is what
    `timings` made of the run, for those who have it. Nobody wins at a problem that was added to the plan: not all take part.
    """
    timed = timings(run) if timed is None else timed
    divisions: dict[tuple[str, bool], list[Entry]] = {}
    for case in run.manifest.cases:
        if timing := timed.get(case.id):
            divisions.setdefault((case.group, case.approximate), []).append((case, run.measurements[case.id], timing))
    return pd.DataFrame([_contest(entries) for entries in divisions.values()], columns=COLUMNS)


def _contest(entries: list[Entry]) -> dict[str, Any]:
    """The row of one division of one problem."""
    ranked = _ranked(entries)
    lead = paired(ranked[0][1], ranked[1][1]) if len(ranked) > 1 else None
    if lead is not None and lead.estimate < 1.0:  # the paired rounds know better than the two medians
        ranked[0], ranked[1] = ranked[1], ranked[0]
        lead = paired(ranked[0][1], ranked[1][1])
    case, _, timing = ranked[0]
    against = ITSELF if case.kernel == case.baseline else timing.speedup
    names = "operator device label batch seq_len dtype direction group kernel family baseline"
    return {name: getattr(case, name) for name in names.split()} | {
        "division": "approximate" if case.approximate else "exact",
        "latency_s": timing.latency.estimate,
        "speedup": against.estimate if against else None,
        "speedup_low": against.low if against else None,
        "speedup_high": against.high if against else None,
        "runner_up": ranked[1][0].kernel if len(ranked) > 1 else None,
        "lead": lead.estimate if lead else None,
        "lead_low": lead.low if lead else None,
        "lead_high": lead.high if lead else None,
        "tie": len(ranked) > 1 and (lead is None or stats.is_tie(lead)),
        "contestants": len(ranked),
    }


def _ranked(entries: list[Entry]) -> list[Entry]:
    """Fastest first: by paired speedup over the baseline, which a drifting machine leaves alone; else by latency."""
    speedups = {case.id: timing.speedup.estimate for case, _, timing in entries if timing.speedup}
    if len(speedups) < len(entries):
        return sorted(entries, key=lambda entry: entry[2].latency.estimate)
    return sorted(entries, key=lambda entry: -speedups[entry[0].id])


def paired(faster: Measurement, slower: Measurement) -> Interval | None:
    """The second's time over the first's, from rounds that both took part in; None when they share none."""
    try:
        return stats.paired_speedup(faster.processes, slower.processes)
    except ValueError:
        return None
