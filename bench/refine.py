"""Which lengths to add to a run so that it tells more closely where the fastest kernel changes. No torch."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from . import plan
from .crossings import Crossing, axis_of, crossings
from .variants import lengths

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kerneldyno.kernels.registry import Device, Kernel, Problem

    from .journal import Run
    from .manifest import Settings
    from .records import Case

CLOSE = 1.1
"""Lengths of no larger ratio enclose a crossing closely enough."""
MOST_BISECTIONS = 6
"""Between two lengths of the plan; they bring a factor of 400 down to `CLOSE`."""
STEPS = ((256, 64), (64, 16), (0, 1))
"""(above this length, added ones are multiples of this): kernels work in tiles, and users ask for round lengths."""


def more(run: Run, kernels: Mapping[str, Kernel], device: Device) -> list[Case]:
    """The cases of one more step of bisection at every place where the fastest kernel changes; empty when all is told.

    Of each group: the two kernels concerned, and the baseline. `kernels`: all there are.
    """
    known, planned = {case.group for case in run.cases}, {case.kernel for case in run.cases}
    wanted: dict[str, tuple[Problem, str, set[str]]] = {}
    for crossing in crossings(run):
        length = next_length(crossing, run)
        if length is None or (problem := _problem_at(length, crossing, run, kernels)) is None:
            continue
        pair = {crossing.shorter, crossing.longer}
        baseline = plan.baseline_of(problem, kernels, device)
        if any(kernels[name].why_not(problem, device) for name in pair):
            continue
        group = plan.case_of(kernels[crossing.shorter], problem, device, run.manifest.settings.seed, baseline).group
        if group not in known:  # what is measured in another process cannot be paired with what is there
            wanted.setdefault(group, (problem, baseline, set()))[2].update(pair | ({baseline} & planned))
    return [
        plan.case_of(kernels[name], problem, device, run.manifest.settings.seed, baseline)
        for problem, baseline, names in wanted.values()
        for name in dict.fromkeys(case.kernel for case in run.cases)
        if name in names and kernels[name].why_not(problem, device) is None
    ]


def asked(settings: Settings, kernels: Mapping[str, Kernel], device: Device) -> Callable[[Run], Sequence[Case]]:
    """What is asked for more cases when all of a run is measured: `more`, or who knows of none."""
    return partial(more, kernels=kernels, device=device) if settings.refine_crossovers else lambda _: ()


def next_length(crossing: Crossing, run: Run) -> int | None:
    """The length to measure next at a crossing; None where it is known closely enough, ties included, or was asked for often enough."""
    if not crossing.leads or len(crossing.points) > 2 or crossing.high <= CLOSE * crossing.low:
        return None
    return middle(crossing.low, crossing.high) if _bisections(crossing, run) < MOST_BISECTIONS else None


def middle(low: int, high: int) -> int | None:
    """The round length nearest the geometric middle of two others; None where there is none between them."""
    centre = math.sqrt(low * high)
    step = next(step for above, step in STEPS if centre > above)
    below = int(centre // step) * step
    inside = [length for length in (below, below + step) if low < length < high]
    return min(inside, key=lambda length: abs(math.log(length / centre)), default=None)


def _bisections(crossing: Crossing, run: Run) -> int:
    """How many lengths were added for this pair between the lengths of the plan that enclose the crossing."""
    planned, added = _lengths(crossing, run.manifest.cases), _lengths(crossing, run.added)
    low = max((length for length in planned if length <= crossing.low), default=crossing.low)
    high = min((length for length in planned if length >= crossing.high), default=crossing.high)
    return sum(low < length < high for length in added)


def _lengths(crossing: Crossing, cases: Sequence[Case]) -> set[int]:
    """At which both kernels were to be measured."""
    of: dict[str, set[int]] = {crossing.shorter: set(), crossing.longer: set()}
    for case in cases:
        if case.kernel in of and axis_of(case) == crossing.axis:
            of[case.kernel].add(case.seq_len)
    return of[crossing.shorter] & of[crossing.longer]


def _problem_at(length: int, crossing: Crossing, run: Run, kernels: Mapping[str, Kernel]) -> Problem | None:
    """The problem of a crossing at another length; None where there is none."""
    case = next(case for case in run.cases if case.id == crossing.points[0].cases[0])
    try:
        return kernels[case.kernel].problem(**case.problem | dict.fromkeys(lengths(case), length))
    except ValueError:
        return None
