"""Interleaved rounds: every kernel of the group in random order, until all have been sampled enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from .contender import Contender
from .gate.conduct import Lingers, left_alone
from .gate.examine import Gate
from .gate.threads import UNKNOWN, Threads
from .instruments.clock import Clock
from .instruments.watch import Watch, slowdowns
from .legs import run_leg
from .messages import Recorder
from .pool import Pool
from .records import Warn

FEWEST_ROUNDS = 5
"""Of a protocol that asks for a fixed number: so many are taken however long they last."""


@dataclass
class Rounds:
    """Takes the samples of one group."""

    pool: Pool
    clock: Clock
    watch: Watch
    recorder: Recorder
    gate: Gate
    rng: np.random.Generator
    threads: Threads
    dropped: int = 0
    """Rounds thrown away because the device throttled."""
    errors: dict[int, BaseException] = field(default_factory=dict)
    """What contenders that failed meanwhile raised, by index."""

    def sample(self, contenders: list[Contender], stop: Callable[[], bool]) -> Iterator[Contender]:
        """Sample until every one's stopping rule is content; yield those that failed, for the caller to take off the list.

        One that is content stays in the rounds with a single sample, so that all have seen the same stretch of time: on a
        machine whose speed drifts, medians of different stretches could not be compared.
        """
        number = 0
        while not stop() and not _enough(contenders, number):
            self.pool.refresh(number)
            before = self.watch.read()
            for i in self.rng.permutation(len(contenders)):
                self._leg(contenders[i], number)
            after = self.watch.read()
            self._find_busy(contenders)
            yield from [contender for contender in contenders if contender.index in self.errors]
            if slowdowns(before, after):
                self.dropped += 1
                for contender in contenders:
                    contender.forget_round(number)
            number += 1

    def _leg(self, contender: Contender, number: int) -> None:
        self.recorder.mark(contender.index)
        started = time.perf_counter()
        try:
            with left_alone():
                run_leg(contender, self.pool, self.clock, number, self.rng)
            self.gate.untouched()
            self.threads.note(contender.index)
        except BaseException as error:  # noqa: BLE001 - a kernel may raise anything, SystemExit too: it costs that kernel only
            self.gate.instruments.restore()
            self.errors[contender.index] = error
        self.recorder.clear()
        contender.note("timing", time.perf_counter() - started)

    def _find_busy(self, contenders: list[Contender]) -> None:
        """Between rounds nothing may be at work: whose threads are spoils the others' samples, too, and ends here."""
        for owner, share in self.threads.busy().items():
            for contender in contenders:
                if owner == contender.index:
                    said = f"threads go on working between its calls ({share:.0%} of a processor)"
                    self.errors[contender.index] = Lingers(said)
                elif owner == UNKNOWN and not any(warning.code == "busy-threads" for warning in contender.measurement.warnings):
                    text = f"threads of some kernel of the group are at work between calls ({share:.0%} of a processor)"
                    contender.measurement.warnings.append(Warn("busy-threads", f"{text}: measure kernels alone to find out whose"))


def _enough(contenders: list[Contender], rounds: int) -> bool:
    """Whether the protocol asks for no further round."""
    most = contenders[0].rule.protocol.rounds if contenders else None
    if most is None:
        return all(contender.rule.is_finished for contender in contenders)
    tired = any(contender.rule.busy_s >= contender.rule.protocol.cap_s for contender in contenders)
    return rounds >= most or (tired and rounds >= FEWEST_ROUNDS)
