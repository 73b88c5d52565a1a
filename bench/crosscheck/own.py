"""kerneldyno's own method in the cross-check: interleaved rounds of legs, as in a run, for a given time."""

from __future__ import annotations

import numpy as np

from kerneldyno.kernels.registry import Device

from .. import plan, steps
from ..contender import Contender
from ..instruments.clock import Clock
from ..legs import run_leg
from ..manifest import PROTOCOLS, Protocol
from ..records import Case, Measurement, Process
from ..stopping import StoppingRule, WarmUp
from .subjects import Group

NAME = "kerneldyno"


class OwnMethod:
    """Samples all kernels of a group side by side, as often as it is asked to; they are warmed up once."""

    def __init__(self, group: Group, device: Device, clock: Clock, seed: int) -> None:
        self.group = group
        self.clock = clock
        self._rng = np.random.default_rng(seed)
        self._round = 0
        cases = plan.make(list(group.kernels.values()), [group.problem], device, seed=0).groups[0].cases
        self._contenders = [self._warmed_up(index, case) for index, case in enumerate(cases)]

    def measure(self, seconds: float) -> dict[str, Process]:
        """Kernel -> its samples, all of them taken within `seconds` times the number of kernels by the wall.

        A kernel that was busy for `seconds` keeps the others company with one sample per leg, as in a run.
        """
        for contender in self._contenders:
            contender.samples, contender.cold = [], []
            contender.legs_s = contender.cold_s = contender.sweeps_s = 0.0
            contender.rule = StoppingRule(_for_a_time(seconds))
        until = self.clock.now() + seconds * len(self._contenders)
        while self.clock.now() < until:
            self.group.pool.refresh(self._round)
            for i in self._rng.permutation(len(self._contenders)):
                run_leg(self._contenders[i], self.group.pool, self.clock, self._round, self._rng)
            self._round += 1
        return {contender.kernel.name: contender.process(worker=0) for contender in self._contenders}

    def _warmed_up(self, index: int, case: Case) -> Contender:
        group = self.group
        contender = Contender(
            index=index,
            case=case,
            kernel=group.kernels[case.kernel],
            problem=group.problem,
            setup=group.setup,
            measurement=Measurement(case=case.id, status="ok"),
            rule=StoppingRule(PROTOCOLS["default"]),
            warm=WarmUp(PROTOCOLS["default"]),
        )
        contender.run = group.runs[case.kernel]
        steps.warm_up(contender, group.pool, self.clock, stop=lambda: False)
        return contender


def _for_a_time(seconds: float) -> Protocol:
    """A protocol that nothing but time ends."""
    return Protocol(
        name="crosscheck",
        min_samples=1,
        target=0.0,
        min_total_s=seconds,
        cap_s=seconds,
        warmup_s=0.0,
        warmup_agreement=0.0,
        warmup_cap_s=0.0,
    )
