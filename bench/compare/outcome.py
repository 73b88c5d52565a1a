"""What came of a comparison as a whole, derived from its run folder: verdicts, canaries, warnings, exit code. No torch, no kernels."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, Literal

from ..stats import geometric_mean
from ..verdict import (
    EXIT_CASES,
    EXIT_FINE,
    EXIT_INTERRUPTED,
    EXIT_REGRESSED,
    EXIT_TOO_NOISY,
    WORDS,
    Canary,
    Mean,
    Outcome,
    Verdict,
)
from . import pairs
from .decide import SEEN, canaries, decide
from .verdicts import verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..comparison import Cell, Comparison, Terms
    from ..journal import Run
    from ..records import Measurement

MEANINGS = {
    EXIT_FINE: "nothing regressed",
    EXIT_REGRESSED: "something regressed",
    EXIT_TOO_NOISY: "too noisy to tell, or the canary failed",
    EXIT_CASES: "cases failed, are wrong or missing",
    EXIT_INTERRUPTED: "interrupted; what was measured is kept",
}
MOVED_TOGETHER = 0.8
"""With a larger share of the cells changed by about as much as the others, one cause is likely."""
ENOUGH_TO_MOVE = 5
TOGETHER_BY = 0.01


def derive(run: Run) -> Outcome:
    """The outcome of a comparison's run. Raises ValueError for a run that compares nothing."""
    manifest, measurements = run.manifest, run.measurements
    comparison = manifest.comparison
    if comparison is None:
        raise ValueError(f"{run.folder} is a sweep and compares nothing")
    cases, terms = {case.id: case for case in manifest.cases}, comparison.terms
    interrupted = run.ended is None or run.ended.reason == "interrupted"
    compared = [cell for cell in comparison.cells if cell.compared]
    cut_short = interrupted or manifest.settings.budget_s is not None
    left_out = [cell for cell in compared if cut_short and _untried(cell, measurements)]
    judged = [cell for cell in compared if cell not in left_out]
    decisions = decide({cell.id: pairs.evidence(cell, measurements) for cell in judged}, terms, run.first_looks, doubted(judged))
    verdicts = [verdict(cell, cases, measurements, decisions[cell.id], terms, cells=len(judged)) for cell in judged]
    verdicts.sort(key=lambda one: WORDS.index(one.word))
    watched = _canaries(comparison, measurements)
    code = exit_code(verdicts, watched, terms, interrupted=interrupted, left_out=len(left_out))
    return Outcome(
        version=manifest.version,
        created=manifest.created,
        form=comparison.form,
        base=comparison.base,
        candidate=comparison.candidate,
        device_name=manifest.environment.device_name,
        terms=terms,
        verdicts=verdicts,
        canaries=watched,
        means=means(verdicts),
        warnings=_warnings(verdicts, watched, comparison, run),
        changed=comparison.changed,
        unchanged=comparison.unchanged,
        left_out=[f"{cell.candidate_kernel} at {cell.label}" for cell in left_out],
        headline=headline(verdicts, left_out, watched),
        sensitivity=sensitivity(verdicts, terms),
        exit_code=code,
        meaning=MEANINGS[code],
        wall_s=run.ended.wall_s if run.ended else None,
        command=manifest.settings.command,
    )


def doubted(cells: Sequence[Cell]) -> set[str]:
    """Cells of which an improvement would be no good news, and needs a second look as a regression does."""
    return {cell.id for cell in cells if cell.unchanged}


def exit_code(verdicts: Sequence[Verdict], watched: Sequence[Canary], terms: Terms, *, interrupted: bool = False, left_out: int = 0) -> int:
    """What CI is told: cases that failed first, then a canary that failed, a regression, too much noise.

    Canaries and noise count only where times do; a kernel whose time changed although nothing of it did is like a canary
    that failed. A budget that left nothing to say is too much noise.
    """
    if interrupted:
        return EXIT_INTERRUPTED
    moved = [one for one in verdicts if one.fails and one.word == "INVALID" and one.latency is not None]
    if any(one.fails and one.word in ("FAILED", "MISSING", "INVALID") and one not in moved for one in verdicts):
        return EXIT_CASES
    timed = "latency" in terms.gates
    if timed and (moved or any(one.word in ("DIFFERS", "FAILED") for one in watched)):
        return EXIT_TOO_NOISY
    if any(one.fails for one in verdicts):
        return EXIT_REGRESSED
    if left_out and not verdicts:
        return EXIT_TOO_NOISY
    if not timed:
        return EXIT_FINE
    unclear = sum(one.word == "INCONCLUSIVE" for one in verdicts)
    return EXIT_TOO_NOISY if unclear > terms.too_many_inconclusive * len(verdicts) else EXIT_FINE


def headline(verdicts: Sequence[Verdict], left_out: Sequence[Cell] = (), watched: Sequence[Canary] = ()) -> str:
    """One sentence: how many cells came out how, and the worst by name."""
    if not verdicts and not left_out:
        return "No kernel was compared (--all compares those that do not differ, too)"
    if not verdicts:
        return "Nothing was compared" + (f"; {len(left_out)} cells were left out" if left_out else "")
    counts = [f"{count} {word.lower()}" for word in WORDS if (count := sum(one.word == word for one in verdicts))]
    slower = [one for one in verdicts if one.word == "REGRESSED" and one.latency is not None]
    worst = max(slower, key=lambda one: one.latency.ratio if one.latency else 0.0, default=None)
    named = f" (worst: {worst.kernel} {worst.latency.ratio - 1:+.1%} at {worst.label})" if worst and worst.latency else ""
    more = f"; {len(left_out)} left out for lack of time" if left_out else ""
    failed = "; the canary failed: no time here can be believed" if any(one.word in ("DIFFERS", "FAILED") for one in watched) else ""
    return f"{', '.join(counts)} of {len(verdicts)} cells{named}{more}{failed}"


def sensitivity(verdicts: Sequence[Verdict], terms: Terms) -> str:
    """What slowdown would have been seen with what chance, in a sentence; empty where no time was compared."""
    chances = [one.power for one in verdicts if one.power is not None]
    if not chances:
        return ""
    processes = sorted({one.latency.processes for one in verdicts if one.latency})
    counted = f"{processes[0]}" if len(processes) == 1 else f"{processes[0]} to {processes[-1]}"
    middle, least = statistics.median(chances), min(chances)
    worst = "" if least > middle - 0.01 else f", in the most restless one {least:.0%}"
    return (
        f"{counted} processes per cell: +{SEEN:.0%} would be seen with {middle:.0%} in the median cell{worst} (margin {terms.margin:.0%})"
    )


def means(verdicts: Sequence[Verdict]) -> list[Mean]:
    """Geometric mean of the ratios of each operator's cells that both sides have."""
    found: dict[str, list[float]] = defaultdict(list)
    for one in verdicts:
        if one.latency:
            found[one.operator].append(one.latency.ratio)
    return [Mean(operator=operator, ratio=geometric_mean(ratios), cells=len(ratios)) for operator, ratios in sorted(found.items())]


def _canaries(comparison: Comparison, measurements: Mapping[str, Measurement]) -> list[Canary]:
    cells = {cell.id: cell for cell in comparison.cells if cell.copy is not None}
    evidence = {key: pairs.evidence(cell, measurements).copies for key, cell in cells.items()}
    words: dict[str, tuple[Literal["SAME", "DIFFERS", "INCONCLUSIVE", "FAILED"], str]] = {**canaries(evidence, comparison.terms)}
    found = []
    for key, cell in cells.items():
        word, reason = words[key]
        base, copy = measurements.get(cell.base or ""), measurements.get(cell.copy or "")
        if base is not None and base.status != "ok":
            word, reason = "INCONCLUSIVE", f"the base is {base.status}: {base.reason}"
        elif copy is not None and copy.status != "ok":
            word = "INCONCLUSIVE" if copy.status == "invalid" else "FAILED"
            reason = f"the base is right, its own copy is {copy.status}: {copy.reason}"
        if base is None and copy is None:
            continue  # no time was left for it
        ratio = pairs.ratio(evidence[key], base, copy, margin=comparison.terms.canary_margin) if base and copy else None
        found.append(Canary(cell=key, kernel=cell.base_kernel, label=cell.label, ratio=ratio, word=word, reason=reason))
    return found


def _untried(cell: Cell, measurements: Mapping[str, Measurement]) -> bool:
    """Whether a side that should have been measured was not; a candidate that is known to fail was tried."""
    if cell.candidate is None:
        return False
    candidate = measurements.get(cell.candidate)
    if candidate is None or candidate.status != "ok":
        return candidate is None
    return cell.base is not None and cell.base not in measurements


def _warnings(verdicts: Sequence[Verdict], watched: Sequence[Canary], comparison: Comparison, run: Run) -> list[str]:
    found = list(comparison.warnings)
    if together := _moved_together(verdicts):
        found.append(together)
    unclear = [one for one in watched if one.word == "INCONCLUSIVE"]
    if unclear:
        found.append(f"{len(unclear)} of {len(watched)} canaries are inconclusive ({unclear[0].reason}): read small changes with care")
    if not watched and verdicts and comparison.form != "runs":
        found.append("no canary was measured: nothing shows whether this machine tells equal kernels apart")
    found += _ungated(verdicts, comparison.terms)
    noisy = [one for one in verdicts if one.advisory]
    if noisy:
        limits = f"they scatter by more than {comparison.terms.noisy:.0%}, so only changes beyond {comparison.terms.noisy_margin:.0%} count"
        found.append(f"{len(noisy)} cells are noisy ({noisy[0].kernel} at {noisy[0].label}): {limits}")
    disturbed = sum(any(warn.code == "disturbed" for warn in one.warnings) for one in run.measurements.values())
    if disturbed:
        found.append(f"in {disturbed} of {len(run.measurements)} measurements other processes were at work on this machine")
    return found


def _ungated(verdicts: Sequence[Verdict], terms: Terms) -> Iterator[str]:
    """Quantities that should fail the comparison but could not be compared somewhere."""
    for quantity in terms.gates:
        unknown = [one for one in verdicts if quantity in one.changes and one.changes[quantity].word == "INCONCLUSIVE"]
        if unknown:
            first = unknown[0]
            where = f"{first.kernel} at {first.label}: {first.changes[quantity].reason}"
            yield f"{quantity} could not be compared in {len(unknown)} of {len(verdicts)} cells, and fails nothing there ({where})"


def _moved_together(verdicts: Sequence[Verdict]) -> str | None:
    """A sentence when nearly all cells changed by about the same share, which kernels rarely do of themselves."""
    logs = [math.log(one.latency.ratio) for one in verdicts if one.latency]
    if len(logs) < ENOUGH_TO_MOVE or len({one.kernel for one in verdicts}) < 2:
        return None
    middle = statistics.median(logs)
    alike = sum(abs(value - middle) <= max(abs(middle) / 3, TOGETHER_BY / 2) for value in logs)
    if abs(middle) < TOGETHER_BY or alike < MOVED_TOGETHER * len(logs):
        return None
    return (
        f"{alike} of {len(logs)} cells changed by about the same share ({math.expm1(middle):+.1%}): look for one common cause "
        "(a private module, the loading of kernels) before blaming each kernel"
    )
