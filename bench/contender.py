"""One kernel of a group on its way from build to measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kerneldyno.kernels.registry import Kernel, Problem, Run, Setup

from .gate.verify import Standard, glanced_at
from .pool import Answered, Pool
from .records import Case, Measurement, Process
from .stopping import StoppingRule, WarmUp


@dataclass(frozen=True)
class Sample:
    """One reading of the clock: seconds per call."""

    round: int
    seconds: float
    host_seconds: float | None
    warm_seconds: float | None
    held: bool = True
    """False when gaps between launches are part of `seconds`: see Timing."""


@dataclass
class Contender:
    """One kernel of the group, what is known of it so far, and what it has cost."""

    index: int
    """Its place in the request: what the flight recorder notes."""
    case: Case
    kernel: Kernel
    problem: Problem
    setup: Setup
    measurement: Measurement
    rule: StoppingRule
    warm: WarmUp
    run: Run | None = None
    build_alone_s: float = 0.0
    """Seconds of the build without its first call."""
    calls: int = 1
    """Calls per sample."""
    call_s: float = 0.0
    """A rough idea of one call, for planning legs."""
    samples: list[Sample] = field(default_factory=list)
    cold: list[tuple[int, float]] = field(default_factory=list)
    """Round and seconds of single calls with emptied caches, where `samples` are warm."""
    legs_s: float = 0.0
    """Time spent in its legs so far, cold samples apart …"""
    cold_s: float = 0.0
    """… in cold calls …"""
    sweeps_s: float = 0.0
    """… and in emptying the caches for them."""
    warmup_calls: int = 0
    breaks_before: int = 0
    """Graph breaks of torch.compile in this process before it was built."""
    standards: tuple[Standard, ...] = ()
    """What its answers for each variant of the inputs are held to; empty: nobody looks at them."""
    symmetric: bool = True
    """False: its answers for disguised inputs cannot be told from those for the plain ones."""
    last: Answered | None = None
    """The last timed output, and the question that it answers."""
    _ready: list[Any] = field(default_factory=list)
    _ready_round: int = -1

    @property
    def samples_per_leg(self) -> int:
        """As many as fit into a leg, at least one; one when enough were taken and it only keeps the others company."""
        protocol = self.rule.protocol
        if self.rule.is_finished and protocol.rounds is None:
            return 1
        fitting = round(protocol.leg_s / max(self.calls * self.call_s, 1e-9))
        return min(max(fitting, 1), protocol.samples_per_leg)

    def prepared(self, inputs: Any) -> Any:
        """What `run` is given for these inputs: the result of `prepare` where the kernel has one."""
        return self.kernel.prepare(self.problem, self.setup, inputs) if self.kernel.prepare else inputs

    def whole(self, inputs: Any) -> Any:
        """Prepare and run: the kernel as a function of plain inputs."""
        assert self.run is not None
        return self.run(self.prepared(inputs))

    def slots(self, pool: Pool, chosen: Sequence[int]) -> list[Any]:
        """The chosen slots, prepared once per round outside of every timed span."""
        if not self.kernel.prepare:
            return [pool.slots[i] for i in chosen]
        if self._ready_round != pool.round or not self._ready:
            self._ready = [self.prepared(slot) for slot in pool.slots]
            self._ready_round = pool.round
        return [self._ready[i] for i in chosen]

    def glance(self, answered: Answered, rng: np.random.Generator) -> None:
        """Look at a part of a timed answer. Raises WrongOutput when it is wrong."""
        if self.standards and self.symmetric:
            glanced_at(answered.plain(), self.standards[answered.variant], rng)

    def note(self, phase: str, seconds: float) -> None:
        """Add to the wall time that this case has cost in a phase."""
        spent = self.measurement.phases_s
        spent[phase] = spent.get(phase, 0.0) + seconds

    def add(self, sample: Sample) -> None:
        """Keep a sample, and let the stopping rule know."""
        self.samples.append(sample)
        self.rule.add(sample.seconds, sample.seconds * self.calls)

    def forget_round(self, round_number: int) -> None:
        """Drop the samples of one round: they decide neither the result nor when to stop."""
        for sample in self.samples:
            if sample.round == round_number:
                self.rule.forget(sample.seconds)
        self.samples = [sample for sample in self.samples if sample.round != round_number]
        self.cold = [(number, seconds) for number, seconds in self.cold if number != round_number]

    def release(self) -> None:
        """Let go of everything the kernel holds."""
        self.run, self.last, self._ready = None, None, []

    def process(self, worker: int) -> Process:
        """The samples as they are recorded."""
        host = [s.host_seconds for s in self.samples if s.host_seconds is not None]
        warm = [s.warm_seconds for s in self.samples if s.warm_seconds is not None]
        return Process(
            worker=worker,
            samples_s=[s.seconds for s in self.samples],
            rounds=[s.round for s in self.samples],
            host_samples_s=host or None,
            warm_samples_s=warm or None,
            cold_samples_s=[seconds for _, seconds in self.cold] or None,
            calls_per_sample=self.calls,
            warmup_calls=self.warmup_calls,
            warmup_s=self.measurement.phases_s.get("warmup", 0.0),
        )
