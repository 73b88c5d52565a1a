"""A clock that shows times measured elsewhere, so that pytest-benchmark stores them to the last bit."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence


class VirtualClock:
    """A timer for pytest-benchmark: before each round `rewind` sets it to 0, in the round `advance` sets it to the next sample.

    What pytest-benchmark stores is the difference of two readings, sample - 0.0, which is exactly the sample; a clock that
    ran on would lose bits. Until samples are loaded it shows the time of day's clock, so that a test which uses the fixture
    `benchmark` as usual gets what it expects.
    """

    __name__ = "kerneldyno.samples"
    """What pytest-benchmark calls the timer in its JSON."""

    def __init__(self) -> None:
        self.readings = 0
        """How often it was read since it was loaded: twice a round, if anybody looks at it."""
        self._now = 0.0
        self._samples: Iterator[float] | None = None

    def load(self, samples: Sequence[float]) -> None:
        """Take these samples, in seconds, to show them in order."""
        self.readings, self._now, self._samples = 0, 0.0, iter(samples)

    def rewind(self) -> None:
        """Begin a round."""
        self._now = 0.0

    def advance(self) -> None:
        """Do what takes as long as the next sample says; nothing when all have been shown."""
        if self._samples is not None:
            self._now = next(self._samples, self._now)

    def __call__(self) -> float:
        if self._samples is None:
            return time.perf_counter()
        self.readings += 1
        return self._now
