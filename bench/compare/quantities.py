"""What is not a time: memory, errors and energy of two measurements of one problem. No torch, no kernels."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from ..verdict import Change, Word

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..records import Measurement

ALLOCATOR_BYTES = 64 << 10
"""Allocators round, and a call's own bookkeeping varies by as much; and besides …"""
ALLOCATOR_SHARE = 0.005
"""… by this share of the peak."""
LEAK_BYTES = 4096
"""By so much a leak that was there before may vary."""
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


def changes(base: Measurement, candidate: Measurement, *, one_kernel: bool = True) -> dict[str, Change]:
    """Memory, errors and energy, each with its word and a sentence. `one_kernel` False: two kernels that need not be alike."""
    return {
        "memory": memory(base, candidate),
        "errors": errors(base, candidate, one_kernel=one_kernel),
        "energy": energy(base, candidate),
    }


def memory(base: Measurement, candidate: Measurement) -> Change:
    """Peak bytes of a call; bytes of weights and bytes that leak fail it, too."""
    old, new = base.peak_bytes, candidate.peak_bytes
    before, leak = base.leak_bytes or 0, candidate.leak_bytes or 0
    if leak > before + (LEAK_BYTES if before else 0):
        return _change(old, new, "B", "REGRESSED", f"{leak:,} bytes of every call stay allocated; it was {before:,}")
    if base.weight_bytes is not None and (candidate.weight_bytes or 0) > base.weight_bytes:
        return _change(old, new, "B", "REGRESSED", f"it keeps {candidate.weight_bytes:,} bytes of weights; it kept {base.weight_bytes:,}")
    if old is None or new is None:
        why = base.peak_source if old is None else candidate.peak_source
        return _change(old, new, "B", "INCONCLUSIVE", f"not measured: {why or 'no counter'}")
    if base.peak_source != candidate.peak_source:
        counters = f"{base.peak_source} there, {candidate.peak_source} here"
        return _change(old, new, "B", "INCONCLUSIVE", f"counted by different counters: {counters}")
    tolerance = _tolerance(base.peak_source, old)
    word: Word = "SAME" if abs(new - old) <= tolerance else "REGRESSED" if new > old else "IMPROVED"
    if word == "SAME":
        return _change(old, new, "B", "SAME", f"within {tolerance:,.0f} bytes, what allocators may round")
    return _change(old, new, "B", word, f"{new - old:+,} bytes at the peak of a call ({_percent(old, new)})")


def errors(base: Measurement, candidate: Measurement, *, one_kernel: bool = True) -> Change:
    """Error ratios against float64; of approximate kernels the distance from the exact result, too. The worst of them counts."""
    found = list(_error_changes(base, candidate, one_kernel=one_kernel))
    for word in ("REGRESSED", "IMPROVED"):
        for change in found:
            if change.word == word:
                return change
    return found[0] if found else _change(None, None, "naive errors", "INCONCLUSIVE", "no errors on record")


def _error_changes(base: Measurement, candidate: Measurement, *, one_kernel: bool) -> Iterator[Change]:
    if candidate.distance:
        new = candidate.distance.relative_rms
        far = f"relative rms distance from the exact result {new:.3g}"
        if base.distance:
            old = base.distance.relative_rms
            yield _change(old, new, "relative rms distance", _word(old, new, FARTHER, FARTHER_BY), f"{far}; it was {old:.3g}")
        else:
            became: Word = "REGRESSED" if one_kernel else "INCONCLUSIVE"
            yield _change(0.0, new, "relative rms distance", became, f"{far}; the base is exact")
    if base.errors is None or candidate.errors is None:
        return
    for what, name, factor, by in (
        ("rms_ratio", "root-mean-square", WORSE_RMS, WORSE_RMS_BY),
        ("max_ratio", "largest", WORSE_MAX, WORSE_MAX_BY),
    ):
        old, new = getattr(base.errors, what), getattr(candidate.errors, what)
        text = f"{name} error {new:.3g} times the naive formula's; it was {old:.3g} times"
        yield _change(old, new, "naive errors", _word(old, new, factor, by), text)


def energy(base: Measurement, candidate: Measurement) -> Change:
    """Joules per call, where both sides have windows that may be believed; else what is known of their power."""
    one, other = base.energy, candidate.energy
    if one is None or other is None or one.energy_j is None or other.energy_j is None or not (one.valid and other.valid):
        reasons = [side.reason for side in (one, other) if side is not None and side.reason]
        why = f"no joules: {reasons[0] if reasons else 'they were not asked for (--gate energy)'}"
        if one and other and one.power_w is not None and other.power_w is not None:
            return _change(one.power_w, other.power_w, "W", "INCONCLUSIVE", f"{other.power_w:.4g} W; it was {one.power_w:.4g} W; {why}")
        return _change(None, None, "J", "INCONCLUSIVE", why)
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


def _word(old: float, new: float, factor: float, by: float) -> Word:
    if new > old * factor and new > old + by:
        return "REGRESSED"
    return "IMPROVED" if old > new * factor and old > new + by else "SAME"


def _percent(old: float, new: float) -> str:
    return f"{new / old - 1:+.1%}" if old else "there were none"
