"""One verdict per cell: what was measured of both sides, by the terms that were declared. No torch, no kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..verdict import Verdict, Word
from . import pairs, quantities
from .decide import Decision, power

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..comparison import Cell, Terms
    from ..records import Case, Measurement
    from ..verdict import Change

FAILING: tuple[Word, ...] = ("REGRESSED", "FAILED", "MISSING", "INVALID")
BROKEN = ("wrong", "failed", "timeout", "skipped")


def verdict(
    cell: Cell,
    cases: Mapping[str, Case],
    measurements: Mapping[str, Measurement],
    decision: Decision,
    terms: Terms,
    *,
    cells: int,
    may_gate: bool = True,
) -> Verdict:
    """The verdict on a cell of a comparison of so many cells; `may_gate` False: it is advisory and fails nothing."""
    base, candidate = (measurements.get(case or "") for case in (cell.base, cell.candidate))
    if early := _without_numbers(cell, base, candidate):
        word, reason = early
        return _made(cell, cases, word, reason, fails=may_gate and word in FAILING)
    assert base is not None
    assert candidate is not None
    found = quantities.changes(base, candidate, one_kernel=cell.base_kernel == cell.candidate_kernel)
    word, reason, fails = _said(cell, decision, found, terms)
    differences = pairs.evidence(cell, measurements)
    latency = pairs.ratio(differences.differences, base, candidate, decision.reading, margin=terms.margin)
    return _made(
        cell,
        cases,
        word,
        reason,
        fails=fails and may_gate,
        latency=latency,
        latency_word=decision.word,
        changes=found,
        canary=_canary(cell, measurements, differences.copies, terms),
        advisory=decision.advisory,
        looks=decision.looks,
        power=power(latency.spread, latency.processes, terms, cells=cells, margin=latency.margin) if latency else None,
    )


def _said(cell: Cell, decision: Decision, found: Mapping[str, Change], terms: Terms) -> tuple[Word, str, bool]:
    """Word, sentence, and whether it fails the comparison."""
    latency_gates = "latency" in terms.gates
    if cell.unchanged and latency_gates and decision.word in ("REGRESSED", "IMPROVED"):
        return "INVALID", f"nothing of it was changed, and yet its time is another: {decision.why}", True
    if decision.word == "REGRESSED" and latency_gates:
        return "REGRESSED", f"latency {decision.why}", True
    if bad := quantities.worst(found, terms.gates):
        name, change = bad
        return "REGRESSED", f"{name}: {change.reason}", True
    if decision.word == "REGRESSED":
        return "REGRESSED", f"latency {decision.why}; latency is not among what fails here", False
    if decision.word == "SAME":
        better = next(((name, one) for name, one in found.items() if one.word == "IMPROVED" and name in terms.gates), None)
        if better:
            return "IMPROVED", f"{better[0]}: {better[1].reason}; latency {decision.why}", False
    return decision.word, f"latency {decision.why}", False


def _without_numbers(cell: Cell, base: Measurement | None, candidate: Measurement | None) -> tuple[Word, str] | None:
    """The verdict where a side has no usable number; None where both have."""
    if cell.candidate is None:
        return "FAILED" if cell.broken else "MISSING", f"the candidate has no number here: {cell.reason}"
    if candidate is None:
        return "MISSING", "the candidate was not measured"
    if candidate.status != "ok":
        both = f"; the base, too: {base.reason}" if base is not None and base.status != "ok" else ""
        word: Word = "FAILED" if candidate.status in BROKEN else "INVALID"
        return word, f"the candidate is {candidate.status}: {candidate.reason}{both}"
    if cell.base is None:
        return "NEW", f"the base has no number here: {cell.reason}"
    if base is None:
        return "MISSING", "the base was not measured"
    if base.status in ("wrong", "failed") and not base.processes and not cell.adjacent:
        return "NEW", f"the candidate is right, the base is {base.status}: {base.reason}"
    if base.status != "ok":
        return "INVALID", f"the base is {base.status}: {base.reason}"
    return None


def _canary(cell: Cell, measurements: Mapping[str, Measurement], copies: tuple[float, ...], terms: Terms) -> Any:
    if cell.copy is None or cell.base is None or len(copies) < 2:
        return None
    return pairs.ratio(copies, measurements[cell.base], measurements[cell.copy], margin=terms.canary_margin)


def _made(cell: Cell, cases: Mapping[str, Case], word: Word, reason: str, *, fails: bool, **more: Any) -> Verdict:
    case = cases[cell.candidate or cell.base or ""]
    return Verdict(
        cell=cell.id,
        operator=cell.operator,
        kernel=cell.candidate_kernel,
        base_kernel=cell.base_kernel,
        label=cell.label,
        device=cell.device,
        problem=case.problem,
        word=word,
        fails=fails,
        reason=reason,
        unchanged=cell.unchanged,
        adjacent=cell.adjacent,
        source=cell.source,
        approximate=case.approximate,
        **more,
    )
