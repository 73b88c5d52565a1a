"""What came of a planted fault or of a right kernel, the tally of a section, and exact intervals of rates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_ALARMS = 0.001
"""Share of right kernels that may be refused; a section fails when its alarms prove a larger share."""
MOST_ALARMS_IN_COMPARISONS = 0.01
"""The same for comparisons of a kernel with its own copy: a statistical verdict is wrong now and then."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One planted fault at one place."""

    section: str
    plant: str
    """What is wrong with it, in a few words."""
    where: str
    """The problem, or whatever it was planted in."""
    caught: bool | None
    """None: it could not be tried here; `said` tells why."""
    must: bool = True
    """False for faults that lie below what the gate promises to see: they are counted, but fail nothing."""
    said: str = ""
    """What the harness said of it."""


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """Something right, put through the same gate."""

    section: str
    what: str
    where: str
    alarm: bool | None
    """It was called wrong. None: it could not be tried here; `said` tells why."""
    said: str = ""


Found = Finding | Control


class Rate(msgspec.Struct, frozen=True):
    """A share with the exact interval of its true value."""

    count: int
    of: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """NaN of nothing."""
        return self.count / self.of if self.of else float("nan")


def rate(count: int, of: int, confidence: float = 0.95) -> Rate:
    """`count` out of `of` with the Clopper-Pearson interval, which covers the true share at least so often.

    Of nothing, the interval is [0, 1]. Raises ValueError for a count outside of 0 … of.
    """
    if not 0 <= count <= of:
        raise ValueError(f"{count} out of {of} is no share: give a count from 0 to {of}")
    from scipy import special  # a third of a second that those who only want a class need not pay

    tail = (1 - confidence) / 2
    low = float(special.betaincinv(count, of - count + 1, tail)) if count else 0.0
    high = float(special.betaincinv(count + 1, of - count, 1 - tail)) if count < of else 1.0
    return Rate(count, of, low, high)


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """A section in numbers."""

    section: str
    planted: int
    """Faults that must be caught, and were tried."""
    caught: int
    missed: int
    beyond: int
    """Faults below what the gate promises that were tried …"""
    beyond_caught: int
    """… and how many of these it caught all the same."""
    not_tried: int
    right: int
    """Right kernels put through the gate."""
    alarms: int
    """Right ones that were called wrong."""
    most_alarms: float
    """The share of alarms that is tolerated."""

    @property
    def detection(self) -> Rate:
        """Share of the faults that must be caught that were."""
        return rate(self.caught, self.planted)

    @property
    def false_alarms(self) -> Rate:
        """Share of the right kernels that were called wrong."""
        return rate(self.alarms, self.right)

    @property
    def too_many_alarms(self) -> bool:
        """Whether the alarms prove, at 95 %, a share above the tolerated one."""
        return rate(self.alarms, self.right, confidence=0.9).low > self.most_alarms

    @property
    def failed(self) -> bool:
        return self.missed > 0 or self.too_many_alarms


def tally(section: str, found: Iterable[Found], *, most_alarms: float = MOST_ALARMS) -> Tally:
    """Count what was found in one section."""
    found = [item for item in found if item.section == section]
    faults = [item for item in found if isinstance(item, Finding)]
    controls = [item for item in found if isinstance(item, Control)]
    asked = [item for item in faults if item.must and item.caught is not None]
    beyond = [item for item in faults if not item.must and item.caught is not None]
    caught = sum(item.caught is True for item in asked)
    return Tally(
        section=section,
        planted=len(asked),
        caught=caught,
        missed=len(asked) - caught,
        beyond=len(beyond),
        beyond_caught=sum(item.caught is True for item in beyond),
        not_tried=sum(item.caught is None for item in faults) + sum(item.alarm is None for item in controls),
        right=sum(item.alarm is not None for item in controls),
        alarms=sum(item.alarm is True for item in controls),
        most_alarms=most_alarms,
    )
