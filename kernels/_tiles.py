"""What every tile has to be, whatever kernel it is for: numbers that Triton takes. No torch, no Triton."""

from __future__ import annotations


def require_powers_of_two(least: int, most: int, **numbers: int) -> None:
    """Raise ValueError, which names it, for a number that is no power of two from `least` to `most`."""
    for name, number in numbers.items():
        if not least <= number <= most or number & (number - 1):
            raise ValueError(f"{name} {number} is impossible: give a power of two from {least} to {most}")


def require_range(least: int, most: int, **numbers: int) -> None:
    """Raise ValueError, which names it, for a number outside of `least` to `most`."""
    for name, number in numbers.items():
        if not least <= number <= most:
            raise ValueError(f"{name} {number} is impossible: give a whole number from {least} to {most}")


def require_launch(warps: int, stages: int) -> None:
    """Raise ValueError for numbers of warps and stages that no kernel can be launched with."""
    require_powers_of_two(1, 32, warps=warps)
    require_range(1, 8, stages=stages)
