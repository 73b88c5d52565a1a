"""What the energy windows of one kernel come to: joules per call, and whether they may be believed. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .instruments.joules import WITHIN_C
from .records import Energy

if TYPE_CHECKING:
    from .instruments.joules import Idle, Window

WINDOWS = 4
"""Fewer cannot show how far they lie apart."""
FEWEST_UPDATES = 20
"""Of the counter in each window: with fewer its ends weigh too much."""
MOST_SPREAD = 0.05
MOST_THROTTLED = 0.01
MOST_DISAGREEMENT = 0.10
"""Between the counter and the integral of power readings. Both come from the board's sensors, which are good to about
5 % each: where they are further apart one of them is stale or measures something else, and nobody knows which."""
MOST_STRAY = 0.01
"""Of a window, spent on work after the last call counted as done: then calls were counted before they were over."""
MOST_IDLE_DRIFT = 0.10
"""Of the power above idle: where idle power before and after are further apart, joules above idle mean little."""


def summed(windows: Sequence[Window], idle: Sequence[Idle], source: str, *, wanted_c: float | None, ended: str) -> Energy:
    """Joules per call, gross and net, of all windows together; at least one window and one idle stretch.

    `wanted_c` is the temperature at which windows were to start, `ended` why there are no more windows than these.
    """
    joules, seconds, calls = (sum(values) for values in zip(*((w.joules, w.seconds, w.calls) for w in windows), strict=True))
    watts, idle_w = joules / seconds, sum(stretch.watts for stretch in idle) / len(idle)
    per_window = [window.joules / window.calls for window in windows]
    temperatures = [window.temperature_c for window in windows if window.temperature_c is not None]
    spread = (max(per_window) - min(per_window)) / (sum(per_window) / len(per_window)) if len(windows) > 1 else None
    throttled = sum(window.throttled_s for window in windows) / seconds
    doubts = _doubts(windows, spread, throttled, temperatures, wanted_c, ended)
    no_net = _no_net(watts, [stretch.watts for stretch in idle])
    return Energy(
        power_w=watts,
        energy_j=joules / calls,
        net_energy_j=None if no_net else (joules - idle_w * seconds) / calls,
        source=source,
        reason="; ".join([*(f"not valid: {doubt}" for doubt in doubts), *([no_net] if no_net else [])]) or None,
        valid=not doubts,
        windows_j=per_window,
        updates=sum(window.updates for window in windows),
        spread=spread,
        edge_error=max(window.edge_error for window in windows),
        readings_ratio=_readings_ratio(windows),
        idle_w=idle_w,
        temperature_low_c=min(temperatures, default=None),
        temperature_high_c=max(temperatures, default=None),
        throttled_share=throttled,
    )


def _doubts(
    windows: Sequence[Window], spread: float | None, throttled: float, temperatures: Sequence[float], wanted_c: float | None, ended: str
) -> list[str]:
    """Every reason not to believe the joules, with its number."""
    doubts = []
    if len(windows) < WINDOWS:
        doubts.append(f"{len(windows)} of {WINDOWS} windows: {ended}")
    if (fewest := min(window.updates for window in windows)) < FEWEST_UPDATES:
        doubts.append(f"the counter moved {fewest} times in a window (at least {FEWEST_UPDATES})")
    if spread is not None and spread > MOST_SPREAD:
        doubts.append(f"windows differ by {spread:.1%} (at most {MOST_SPREAD:.0%})")
    if throttled > MOST_THROTTLED:
        doubts.append(f"the device held back for {throttled:.1%} of the time (at most {MOST_THROTTLED:.0%})")
    if wanted_c is not None and any(abs(found - wanted_c) > WITHIN_C for found in temperatures):
        away = max(temperatures, key=lambda found: abs(found - wanted_c))
        doubts.append(f"a window started at {away:.0f} °C, the first of the group at {wanted_c:.0f} °C (within {WITHIN_C:.0f})")
    ratio = _readings_ratio(windows)
    if ratio is not None and abs(ratio - 1) > MOST_DISAGREEMENT:
        doubts.append(f"power readings come to {ratio:.2f} × the joules of the counter (within {MOST_DISAGREEMENT:.0%})")
    stray = max(window.stray_s / window.seconds for window in windows)
    if stray > MOST_STRAY:
        doubts.append(f"the device worked on for {stray:.1%} of a window after all its calls seemed to be done")
    return doubts


def _no_net(watts: float, idle_w: Sequence[float]) -> str | None:
    """Why there are no joules above idle; None when there are."""
    above = watts - sum(idle_w) / len(idle_w)
    if above <= 0:
        return f"no net joules: {watts:.0f} W are not above the {max(idle_w):.0f} W of the idle device"
    if max(idle_w) - min(idle_w) > MOST_IDLE_DRIFT * above:
        return f"no net joules: idle power was {idle_w[0]:.0f} W before and {idle_w[-1]:.0f} W after"
    return None


def _readings_ratio(windows: Sequence[Window]) -> float | None:
    """Joules by power readings over joules by the counter, of the windows that have both."""
    both = [(window.readings_j, window.joules) for window in windows if window.readings_j is not None]
    return sum(read for read, _ in both) / sum(counted for _, counted in both) if both else None
