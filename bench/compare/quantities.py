"""What is not a time: memory, errors and energy of two measurements of one problem. No torch, no kernels."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from ..verdict import Change, Word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..records import Measurement

ALLOCATOR_BYTES = 64 << 10
"""Allocators round, and a call's own bookkeeping varies by as much; and besides …"""
ALLOCATOR_SHARE = 0.005
"""… by this share of the peak."""
DEVICE_BYTES = 2 << 20
"""Memory in use on a device is handed out in pages of this size."""
WORSE_RMS, WORSE_RMS_BY = 1.25, 0.1
"""A root-mean-square error grown by this factor, and by this much of the naive formula's error, is less accurate."""
WORSE_MAX, WORSE_MAX_BY = 2.0, 0.5
"""Likewise the largest error, which varies more with the order of operations."""
FARTHER, FARTHER_BY = 1.1, 1e-4
"""An approximate kernel whose distance from the exact result grows by more than this factor and this much is less accurate."""
MORE_ENERGY = 1.05
"""Joules per call may grow by this factor: windows of one board scatter by as much."""


def changes(base: Measurement, candidate: Measurement) -> dict[str, Change]:
    """Memory, errors and energy, each with its word and a sentence."""
    return {"memory": memory(base, candidate), "errors": errors(base, candidate), "energy": energy(base, candidate)}


def memory(base: Measurement, candidate: Measurement) -> Change:
    """Peak bytes of a call; bytes of weights and bytes that leak fail it, too."""
    old, new = base.peak_bytes, candidate.peak_bytes
    if not base.leak_bytes and candidate.leak_bytes:
        return _change(old, new, "B", "REGRESSED", f"{candidate.leak_bytes:,} bytes of every call stay allocated; none did")
    heavier = _bytes_word(base.weight_bytes, candidate.weight_bytes, ALLOCATOR_BYTES)
    if heavier == "REGRESSED":
        return _change(old, new, "B", "REGRESSED", f"it keeps {candidate.weight_bytes:,} bytes of weights; it kept {base.weight_bytes:,}")
    if old is None or new is None:
        why = base.peak_source if old is None else candidate.peak_source
        return _change(old, new, "B", "INCONCLUSIVE", f"not measured: {why or 'no counter'}")
    tolerance = _tolerance(base.peak_source, old)
    word = _bytes_word(old, new, tolerance)
    if word == "SAME":
        return _change(old, new, "B", "SAME", f"within {tolerance:,.0f} bytes, what allocators may round")
    return _change(old, new, "B", word, f"{new - old:+,} bytes at the peak of a call ({_percent(old, new)})")


def errors(base: Measurement, candidate: Measurement) -> Change:
    """Error ratios against float64; of approximate kernels the distance from the exact result, too."""
    if base.distance and candidate.distance:
        old, new = base.distance.relative_rms, candidate.distance.relative_rms
        word = _word(old, new, FARTHER, FARTHER_BY)
        if word != "SAME":
            text = f"relative rms distance from the exact result {new:.3g}; it was {old:.3g}"
            return _change(old, new, "relative rms distance", word, text)
    if base.errors is None or candidate.errors is None:
        return _change(None, None, "naive errors", "INCONCLUSIVE", "no errors on record")
    for what, factor, by in (("rms_ratio", WORSE_RMS, WORSE_RMS_BY), ("max_ratio", WORSE_MAX, WORSE_MAX_BY)):
        old, new = getattr(base.errors, what), getattr(candidate.errors, what)
        word = _word(old, new, factor, by)
        if word != "SAME":
            name = "root-mean-square" if what == "rms_ratio" else "largest"
            return _change(old, new, "naive errors", word, f"{name} error {new:.3g} times the naive formula's; it was {old:.3g} times")
    old, new = base.errors.rms_ratio, candidate.errors.rms_ratio
    return _change(old, new, "naive errors", "SAME", f"root-mean-square error {new:.3g} times the naive formula's; it was {old:.3g} times")


def energy(base: Measurement, candidate: Measurement) -> Change:
    """Joules per call, where both sides have windows that may be believed."""
    one, other = base.energy, candidate.energy
    if one is None or other is None or one.energy_j is None or other.energy_j is None or not (one.valid and other.valid):
        reasons = [side.reason for side in (one, other) if side is not None and side.reason]
        return _change(None, None, "J", "INCONCLUSIVE", f"not measured: {reasons[0] if reasons else 'no joules on record'}")
    old, new = statistics.median(one.windows_j or [one.energy_j]), statistics.median(other.windows_j or [other.energy_j])
    apart = min(other.windows_j, default=new) > max(one.windows_j, default=old)
    below = max(other.windows_j, default=new) < min(one.windows_j, default=old)
    word: Word = "REGRESSED" if apart and new > old * MORE_ENERGY else "IMPROVED" if below and old > new * MORE_ENERGY else "SAME"
    return _change(old, new, "J", word, f"{new:.3g} J per call; it was {old:.3g} J ({_percent(old, new)})")


def worst(found: Mapping[str, Change], gates: tuple[str, ...]) -> tuple[str, Change] | None:
    """The first quantity among the gates that regressed."""
    return next(((name, change) for name, change in found.items() if name in gates and change.word == "REGRESSED"), None)


def _change(base: float | None, candidate: float | None, unit: str, word: Word, reason: str) -> Change:
    return Change(base=base, candidate=candidate, unit=unit, word=word, reason=reason)


def _tolerance(source: str | None, peak: int) -> float:
    return (DEVICE_BYTES if source and "device memory" in source else ALLOCATOR_BYTES) + ALLOCATOR_SHARE * peak


def _bytes_word(old: int | None, new: int | None, tolerance: float) -> Word:
    if old is None or new is None or abs(new - old) <= tolerance:
        return "SAME"
    return "REGRESSED" if new > old else "IMPROVED"


def _word(old: float, new: float, factor: float, by: float) -> Word:
    if new > old * factor and new > old + by:
        return "REGRESSED"
    return "IMPROVED" if old > new * factor and old > new + by else "SAME"


def _percent(old: float, new: float) -> str:
    return f"{new / old - 1:+.1%}" if old else "there were none"
