"""Are a worker's answers its own? A kernel runs in the worker's process, and could write into its channel."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from .messages import Doing
from .records import Case, Measurement


class Answers:
    """Hears what one worker says of its cases; an answer that cannot be true comes out as invalid, with the reason."""

    def __init__(self, cases: Sequence[Case], *, timed: bool) -> None:
        self._cases = {case.id for case in cases}
        self._timed = timed
        self._began = time.monotonic()
        self._phases: dict[str, str] = {}
        self.answered: set[str] = set()
        """Cases that have an answer."""

    def doing(self, message: Doing) -> None:
        """The worker says what it is about to do."""
        self._phases[message.case] = message.phase

    def done(self, measurement: Measurement) -> Measurement:
        """The measurement, or an invalid one in its place: of a case that was answered before, or cannot have been measured."""
        reason = self._doubt(measurement)
        self.answered.add(measurement.case)
        return measurement if reason is None else Measurement(case=measurement.case, status="invalid", reason=reason)

    def _doubt(self, measurement: Measurement) -> str | None:
        if measurement.case in self.answered:
            return "two answers came for this case: something wrote into the worker's channel"
        if measurement.status != "ok" or not self._timed:
            return None
        if self._phases.get(measurement.case) != "recheck":
            return "it was answered before it was measured: something wrote into the worker's channel"
        spent_s = sum(sum(process.samples_s) * process.calls_per_sample for process in measurement.processes)
        elapsed_s = time.monotonic() - self._began
        if spent_s > elapsed_s:
            return f"its samples take {spent_s:.3g} s, but the worker has lived for {elapsed_s:.3g} s: the clock was tampered with"
        return None


def known(case: str, cases: Collection[Case]) -> bool:
    """Whether a worker was asked for the case that it speaks of."""
    return any(one.id == case for one in cases)
