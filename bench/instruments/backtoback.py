"""Running one kernel back to back, portion by portion, while it stays known how many of its calls are done."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .clock import Callee, Clock

AHEAD = 2
"""Portions queued beyond the one that is waited for: the device never waits for whoever reads a counter meanwhile."""
LONG_CALL_S = 0.1
"""From here on one is enough, and more would only keep somebody waiting who wants to stop."""


class BackToBack(Protocol):
    """A kernel that is kept running."""

    unsure: int
    """Calls that may be done, in whole or in part, beyond those that the last `step` has counted."""

    def step(self) -> int:
        """Run on by a portion; return how many calls are done by now, all in all."""

    def drain(self) -> float:
        """Wait until nothing runs any more; return for how long there was work that nobody had counted as such, in seconds."""


class HostRun:
    """Calls that are done when they return."""

    unsure = 0

    def __init__(self, run: Callee, take: Callable[[int], Sequence[Any]], portion: int) -> None:
        self._run, self._take, self._portion = run, take, portion
        self._done = 0

    def step(self) -> int:
        for item in self._take(self._portion):
            self._run(item)
        self._done += self._portion
        return self._done

    def drain(self) -> float:
        return 0.0


class Mark(Protocol):
    """A place in a device's queue: torch.cuda.Event."""

    def record(self) -> None:
        """Put the mark behind everything that is queued."""

    def query(self) -> bool:
        """Has the device passed it?"""

    def synchronize(self) -> None:
        """Wait until the device has passed it."""


class DeviceRun:
    """Calls that are queued on a device, some portions ahead, with a mark behind each portion.

    A portion is done when its mark was passed. Whoever had to wait for a mark knows the device to be just there; otherwise
    up to one portion may be done in part and uncounted.
    """

    def __init__(
        self, run: Callee, take: Callable[[int], Sequence[Any]], portion: int, mark: Callable[[], Mark], clock: Clock, *, ahead: int = AHEAD
    ) -> None:
        self._run, self._take, self._portion, self._mark, self._clock, self._ahead = run, take, portion, mark, clock, ahead
        self._queued: deque[Mark] = deque()
        self._done = 0
        self.unsure = portion

    def step(self) -> int:
        for item in self._take(self._portion):
            self._run(item)
        mark = self._mark()
        mark.record()
        self._queued.append(mark)
        waited = len(self._queued) > self._ahead and not self._queued[0].query()
        if waited:
            self._pass()
        while self._queued and self._queued[0].query():
            waited = False
            self._pass()
        self.unsure = self._portion if self._queued and not waited else 0
        return self._done

    def drain(self) -> float:
        while self._queued:
            self._pass()
        passed = self._clock.now()
        self._clock.synchronize()
        return self._clock.now() - passed

    def _pass(self) -> None:
        self._queued.popleft().synchronize()
        self._done += self._portion


def cuda_mark() -> Mark:
    """A mark for the current stream of the current CUDA device."""
    import torch

    mark: Mark = torch.cuda.Event()  # type: ignore[no-untyped-call]
    return mark
