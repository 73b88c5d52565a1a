"""Two stored runs against each other: advice, since they were measured at different times. No torch, no kernels."""

from __future__ import annotations

import math
import statistics
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from scipy import stats as distributions

from .. import journal, stats
from ..comparison import Cell, Quantity, Side, Terms
from ..journal import MismatchError, RunFolderError
from ..matching import machine
from ..verdict import EXIT_FINE, WORDS, Outcome
from . import outcome as outcomes
from . import pairs
from .decide import ONE_SIDED, Decision, Reading, holm, power
from .verdicts import verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..journal import Run
    from ..records import Case, Measurement
    from ..verdict import Verdict

ADVICE = "advice only: stored runs were not measured side by side, so nothing fails; measure both now with --base or --kernels"
TOLD = 4


def compare(base: Path, candidate: Path, gates: tuple[Quantity, ...], *, strict: bool = False) -> Outcome:
    """The outcome for two run folders. With `strict` a regression fails, as if they had been measured together.

    Raises MismatchError (exit code 3) for runs of different machines, software or protocols, with `strict` for different
    days, too; JournalError for a folder that holds no readable run, RunFolderError for one that is a comparison itself.
    """
    one, other = journal.read(base), journal.read(candidate)
    for run in (one, other):
        if run.manifest.comparison is not None:
            raise RunFolderError(f"{run.folder} is a comparison itself: give the folders of two runs of kerneldyno run")
    _require_alike(one, other, strict=strict)
    terms = Terms(gates=gates)
    cases, cells = _cells(one, other)
    both = {**one.measurements, **{_other(case): measurement for case, measurement in other.measurements.items()}}
    decisions = _decide(cells, both, terms)
    found: list[Verdict] = []
    for cell in cells:
        made = verdict(cell, cases, both, decisions[cell.id][0], terms, cells=len(cells), may_gate=strict)
        found.append(_with_ratio(made, decisions[cell.id][1], terms, len(cells)))
    found.sort(key=lambda item: WORDS.index(item.word))
    code = outcomes.exit_code(found, (), terms) if strict else EXIT_FINE
    return Outcome(
        version=other.manifest.version,
        created=other.manifest.created,
        form="runs",
        base=_side(one),
        candidate=_side(other),
        device_name=other.manifest.environment.device_name,
        terms=terms,
        verdicts=found,
        means=outcomes.means(found),
        warnings=[] if strict else [ADVICE],
        advisory=not strict,
        headline=outcomes.headline(found),
        sensitivity=outcomes.sensitivity(found, terms),
        exit_code=code,
        meaning=outcomes.MEANINGS[code],
        command=f"kerneldyno compare runs/{one.folder} runs/{other.folder}",
    )


def new_folder() -> Path:
    """Where the files of such a comparison go by default."""
    return Path("runs") / f"{datetime.now():%Y-%m-%d-%H%M%S}-compare"


def _require_alike(one: Run, other: Run, *, strict: bool) -> None:
    names = f"{one.folder} and {other.folder}"
    if apart := list(machine(one.manifest.environment, other.manifest.environment)):
        more = f"; and {len(apart) - TOLD} more" if len(apart) > TOLD else ""
        told = "; ".join(apart[:TOLD]) + more
        raise MismatchError(f"{names} cannot be compared, they are of different machines or software: {told}: measure both on one machine")
    protocols = one.manifest.settings.protocol.name, other.manifest.settings.protocol.name
    if protocols[0] != protocols[1]:
        raise MismatchError(f"{names} cannot be compared: one was measured with --protocol {protocols[0]}, the other with {protocols[1]}")
    seeds = one.manifest.settings.seed, other.manifest.settings.seed
    if seeds[0] != seeds[1]:
        raise MismatchError(f"{names} cannot be compared: their inputs are of --seed {seeds[0]} and {seeds[1]}")
    days = one.manifest.created[:10], other.manifest.created[:10]
    if strict and days[0] != days[1]:
        raise MismatchError(f"{names} are of {days[0]} and {days[1]}: no machine is the same on two days; leave out --strict for advice")


def _cells(one: Run, other: Run) -> tuple[dict[str, Case], list[Cell]]:
    """The cases by id, the candidate's under ids of their own, and the cells that both runs make up."""
    old, new = ({case.id: case for case in run.cases} for run in (one, other))
    cells = []
    for case in {**old, **new}.values():
        ids = case.id if _asked(one, old, case) else None, _other(case.id) if _asked(other, new, case) else None
        if ids == (None, None):
            continue
        reasons = [reason for run in (one, other) if (reason := run.manifest.skipped.get(case.id))]
        absent = "the run did not plan it" if None in ids else None
        cells.append(
            Cell(
                id=case.id,
                operator=case.operator,
                base_kernel=case.kernel,
                candidate_kernel=case.kernel,
                label=case.label,
                device=case.device,
                base=ids[0],
                candidate=ids[1],
                reason=reasons[0] if reasons else absent,
                adjacent="they were measured in different runs",
            )
        )
    return {**old, **{_other(key): case for key, case in new.items()}}, cells


def _asked(run: Run, cases: dict[str, Case], case: Case) -> bool:
    return case.id in cases and case.id not in run.manifest.skipped


def _other(case: str) -> str:
    """The id of a case in the second run, whose ids are those of the first."""
    return f"candidate:{case}"


def _decide(
    cells: Sequence[Cell], measurements: dict[str, Measurement], terms: Terms
) -> dict[str, tuple[Decision, tuple[float, float] | None]]:
    """A decision for each cell by Welch's test over processes, and both sides' seconds per call."""
    sides = {
        cell.id: (pairs.medians(measurements.get(cell.base or "")), pairs.medians(measurements.get(cell.candidate or ""))) for cell in cells
    }
    readings = {cell: _welch(*logs, terms.margin) for cell, logs in sides.items()}
    slower = holm({cell: one.p_slower for cell, one in readings.items() if one}, terms.alpha, len(cells))
    faster = holm({cell: one.p_faster for cell, one in readings.items() if one}, terms.alpha, len(cells))
    found: dict[str, tuple[Decision, tuple[float, float] | None]] = {}
    for cell, one in readings.items():
        times = (math.exp(statistics.fmean(sides[cell][0])), math.exp(statistics.fmean(sides[cell][1]))) if all(sides[cell]) else None
        found[cell] = _word(one, slower=cell in slower, faster=cell in faster, terms=terms, sides=sides[cell]), times
    return found


def _word(one: Reading | None, *, slower: bool, faster: bool, terms: Terms, sides: tuple[list[float], ...]) -> Decision:
    if one is None:
        few = min(len(side) for side in sides)
        return Decision(
            "INCONCLUSIVE",
            None,
            f"{few} process per run says nothing of others: measure both with --processes {stats.MIN_PROCESSES} or more",
        )
    same, noisy = math.log1p(terms.margin), one.spread > terms.noisy
    if slower or faster:
        return Decision(
            "REGRESSED" if slower else "IMPROVED", one, f"{math.expm1(one.mean):+.1%}, beyond the margin of {one.margin:.0%}", noisy
        )
    if one.at_least > -same and one.at_most < same:
        return Decision("SAME", one, f"within ±{terms.margin:.0%}", noisy)
    bounds = f"[{math.expm1(one.at_least):+.1%}, {math.expm1(one.at_most):+.1%}]"
    return Decision("INCONCLUSIVE", one, f"known to {bounds} only", noisy)


def _welch(base: list[float], candidate: list[float], margin: float) -> Reading | None:
    """Student's bounds of the difference of two means of logarithms, variances unequal (Welch 1947); None below three processes each."""
    if min(len(base), len(candidate)) < stats.MIN_PROCESSES:
        return None
    parts = [statistics.variance(side) / len(side) for side in (base, candidate)]
    error = math.sqrt(sum(parts))
    mean, reach = statistics.fmean(candidate) - statistics.fmean(base), math.log1p(margin)
    weight = sum(part**2 / (len(side) - 1) for part, side in zip(parts, (base, candidate), strict=True))
    degrees = sum(parts) ** 2 / weight if weight else len(base) + len(candidate) - 2
    two_sided, one_sided = (float(distributions.t.ppf(level, degrees)) for level in (0.975, ONE_SIDED))

    def tail(distance: float) -> float:
        return float(distributions.t.sf(distance / error, degrees)) if error else float(distance <= 0)

    return Reading(
        mean=mean,
        spread=max(statistics.stdev(side) for side in (base, candidate)),
        processes=min(len(base), len(candidate)),
        low=mean - two_sided * error,
        high=mean + two_sided * error,
        at_least=mean - one_sided * error,
        at_most=mean + one_sided * error,
        margin=margin,
        p_slower=tail(mean - reach),
        p_faster=tail(-mean - reach),
    )


def _with_ratio(made: Verdict, times: tuple[float, float] | None, terms: Terms, cells: int) -> Verdict:
    """Of runs that were not measured together there are no differences process by process: none are shown."""
    if made.latency is None or times is None:
        return made
    latency = msgspec.structs.replace(made.latency, base_s=times[0], other_s=times[1], differences=[])
    chance = power(latency.spread * math.sqrt(2), latency.processes, terms, cells=cells)
    return msgspec.structs.replace(made, latency=latency, power=chance, adjacent=None)


def _side(run: Run) -> Side:
    environment = run.manifest.environment
    return Side(label=run.folder, commit=environment.commit, fingerprint=environment.fingerprint, created=run.manifest.created)
