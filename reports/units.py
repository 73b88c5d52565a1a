"""Numbers for people: the only place where SI quantities become microseconds, MiB or a percentage."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

SCALES: dict[str, tuple[tuple[float, str], ...]] = {
    "s": ((1e-9, "ns"), (1e-6, "µs"), (1e-3, "ms"), (1.0, "s")),
    "B": ((1.0, "B"), (2.0**10, "KiB"), (2.0**20, "MiB"), (2.0**30, "GiB"), (2.0**40, "TiB")),
    "J": ((1e-6, "µJ"), (1e-3, "mJ"), (1.0, "J"), (1e3, "kJ")),
    "W": ((1.0, "W"),),
    "FLOP/s": ((1e6, "MFLOP/s"), (1e9, "GFLOP/s"), (1e12, "TFLOP/s")),
    "B/s": ((1e6, "MB/s"), (1e9, "GB/s"), (1e12, "TB/s")),
    "tok/s": ((1.0, "tok/s"), (1e3, "ktok/s"), (1e6, "Mtok/s")),
    "": ((1.0, ""),),
    "share": ((0.01, "%"),),
}

READABLE = 1e-3
"""From here on a relative error is told in percent."""


def digits(value: float, significant: int = 3) -> str:
    """A number with so many significant digits and no exponent between 0.001 and 10 000; integers above that."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size < -3:
        mantissa, _, exponent = f"{value:.{significant - 1}e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.{max(0, significant - 1 - size)}f}"


def scale(values: Iterable[float], unit: str) -> tuple[float, str]:
    """(divisor, unit) in which the smallest of these positive values reads as at least 1 where a unit allows it."""
    return _step(min((value for value in values if math.isfinite(value) and value > 0), default=1.0), unit)


def quantity(value: float | None, unit: str, significant: int = 3) -> str:
    """`0.00123, "s"` -> `1.23 ms`; nothing for None. 0 stays 0, in the smallest unit."""
    if value is None:
        return ""
    divisor, name = _step(abs(value) if math.isfinite(value) else 1.0, unit)
    return f"{digits(value / divisor, significant)} {name}".strip()


def times(value: float | None) -> str:
    """A ratio: `1.34×`."""
    if value is None:
        return ""
    return f"{value:.0f}×" if value >= 100 else f"{value:.1f}×" if value >= 10 else f"{value:.2f}×"


def error(value: float | None) -> str:
    """A relative error: in percent where it is large enough to be read so, with an exponent where it is rounding."""
    if value is None:
        return ""
    return quantity(value, "share", 2) if value >= READABLE or value == 0 else f"{value:.0e}"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """`1 shape`, `2 shapes`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def listed(words: Iterable[str]) -> str:
    """`a, b and c`."""
    *most, last = list(words) or [""]
    return f"{', '.join(most)} and {last}" if most else last


def _step(least: float, unit: str) -> tuple[float, str]:
    """The largest divisor that leaves at least 1 of it; the smallest where none does."""
    found = SCALES[unit][0]
    for step in SCALES[unit]:
        if step[0] > least:
            break
        found = step
    return found
