"""Power of every kernel of a group, and joules of those chosen for them, in windows of random order."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Literal

import msgspec

from . import finalists, windows
from .instruments.backtoback import AHEAD, LONG_CALL_S, DeviceRun, HostRun, cuda_mark
from .instruments.counter import CounterError
from .instruments.joules import Stand, Stopped
from .records import Energy, Warn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from .contender import Contender
    from .instruments.backtoback import BackToBack
    from .instruments.clock import Clock
    from .instruments.energy import PowerMeter
    from .instruments.joules import Idle, Window
    from .instruments.watch import Watch
    from .messages import Joules
    from .pool import Pool

ACCLIMATISE_S = 15.0
"""A device that has not come to the temperature after so long is measured as it is, and its joules are not valid."""
CALLS_PER_WINDOW = 4
"""Where calls are long, a window takes about so many of them, lead included."""
STOPPED = "the run was stopped"
OTHER_SHAPE = "no joules: windows are taken at the first shape of each operator and kind (prefill, decode); --energy on takes them at all"
NO_FINALIST = "no joules: windows are taken of the two fastest exact kernels and the fastest approximate one; --energy on takes all"


def measure_group(
    contenders: Sequence[Contender],
    pool: Pool,
    clock: Clock,
    meter: PowerMeter,
    watch: Watch,
    rng: np.random.Generator,
    *,
    choice: Literal["auto", "off", "on"],
    joules: Joules,
    allowance_s: float | None,
    stop: Callable[[], bool],
    mark: Callable[[int], None],
    sleep: Callable[[float], None] = time.sleep,
) -> list[tuple[Contender, BaseException]]:
    """Fill `contender.measurement.energy` of every contender with what could be measured, and with a reason for what could not.

    `joules` says who gets windows, `allowance_s` how many seconds these may take (None: as many as they need). `mark` is
    told whenever work goes on, with the index of the contender that runs (-1: none). Once `stop()` is true, what was
    measured stays. Returns those who raised, with what they raised. Raises only what a device says that is lost for good:
    the kernel that ran last was marked.
    """
    reason = "not measured: --energy off" if choice == "off" else meter.reason
    for contender in contenders:
        contender.measurement.energy = Energy(reason=reason or f"not measured: {STOPPED}")
    if reason:
        return []
    group = _Group([contender for contender in contenders if contender.samples], pool, Stand(clock, meter, watch, sleep), rng, stop, mark)
    try:
        group.power()
        group.joules(joules, allowance_s)
    except Stopped:
        pass  # every contender has its reason already
    return group.broken


class _TimeUp(Exception):
    """The allowance is spent."""


@dataclass
class _Series:
    """The windows of one contender."""

    contender: Contender
    work: BackToBack
    windows: list[Window] = field(default_factory=list)
    trouble: str | None = None
    """Why there will be no more of them."""


class _Group:
    """The contenders of one group on the stand."""

    def __init__(
        self,
        contenders: list[Contender],
        pool: Pool,
        stand: Stand,
        rng: np.random.Generator,
        stop: Callable[[], bool],
        mark: Callable[[int], None],
    ) -> None:
        self.contenders, self.pool, self.rng, self.stop, self.mark = contenders, pool, rng, stop, mark
        self.stand = replace(stand, tick=self._tick)
        self.portion_s = stand.portion_s()
        self.running = -1
        self.until_s: float | None = None
        self.heated = False
        self.wanted_c: float | None = None
        """Temperature at which windows start: that of the first one."""
        self.broken: list[tuple[Contender, BaseException]] = []

    def power(self) -> None:
        """An indication for everybody, in random order."""
        for place in self.rng.permutation(len(self.contenders)):
            self._power_of(self.contenders[place])

    def joules(self, joules: Joules, allowance_s: float | None) -> None:
        """Windows for the chosen ones; the others say why they have none."""
        series = [_Series(contender, self._work(contender)) for contender in self._chosen(joules, allowance_s)]
        if not series:
            return
        self.until_s = None if allowance_s is None else self.stand.clock.now() + allowance_s
        idle: list[Idle] = []
        ended = STOPPED
        try:
            self._take(series, idle)
        except Stopped:
            pass
        except _TimeUp:
            ended = f"the {allowance_s:.0f} s that they may take were over"
        except CounterError as error:  # of the idle device
            ended = str(error).removeprefix("not measured: ")
        for one in series:
            self._conclude(one, idle, ended)

    def _power_of(self, contender: Contender) -> None:
        def measure() -> None:
            found = self.stand.power(self._work(contender))
            contender.measurement.energy = Energy(power_w=found[0], source=found[1], reason=f"no joules: {STOPPED}")

        try:
            self._guarded(contender, measure)
        except CounterError as error:
            contender.measurement.energy = Energy(reason=str(error))

    def _take(self, series: Sequence[_Series], idle: list[Idle]) -> None:
        """Rounds of one window each, in random order, between two stretches of rest."""
        idle.append(self.stand.idle())
        for _ in range(windows.WINDOWS):
            self.pool.refresh(self.pool.round + 1)
            for place in self.rng.permutation(len(series)):
                if series[place].trouble is None:
                    self._window(series[place], idle[0].period_s)
        idle.append(self.stand.idle())

    def _window(self, one: _Series, period_s: float) -> None:
        def measure() -> None:
            if not self.heated:
                self.stand.run(one.work, self.stand.meter.pace.heat_s)
                self.heated = True
            self.stand.acclimatise(one.work, self.wanted_c, ACCLIMATISE_S)
            one.windows.append(self.stand.window(one.work, period_s))
            self._glance(one.contender)

        try:
            if not self._guarded(one.contender, measure):
                one.trouble = "it raised"
        except CounterError as error:
            one.trouble = str(error).removeprefix("not measured: ")
        if self.wanted_c is None and one.windows:
            self.wanted_c = one.windows[0].temperature_c

    def _glance(self, contender: Contender) -> None:
        """Look at an answer to what the window asked: a kernel cannot know when it has to be right."""
        assert contender.run is not None
        chosen = self.pool.take(1)
        answer = contender.run(contender.slots(self.pool, chosen)[0])
        contender.glance(self.pool.answered(chosen[0], answer), self.rng)

    def _conclude(self, one: _Series, idle: Sequence[Idle], ended: str) -> None:
        measurement, ended = one.contender.measurement, one.trouble or ended
        if not one.windows:
            self._without(one.contender, f"no joules: {ended}")
            return
        found = windows.summed(one.windows, idle, self.stand.meter.energy_source, wanted_c=self.wanted_c, ended=ended)
        measurement.energy = found
        if not found.valid:
            doubts = (found.reason or "").replace("not valid: ", "")
            measurement.warnings.append(Warn("energy", f"invalid energy window: {doubts}"))

    def _chosen(self, joules: Joules, allowance_s: float | None) -> list[Contender]:
        """Who gets windows, the most wanted first as far as the time goes."""
        broken = {contender.index for contender, _ in self.broken}
        able = [contender for contender in self.contenders if contender.index not in broken]
        latencies = [median(sample.seconds for sample in contender.samples) for contender in able]
        order, number = finalists.ranking(latencies, [contender.case.approximate for contender in able])
        number = {"none": 0, "finalists": number, "all": len(order)}[joules]
        pace = self.stand.meter.pace
        needed_s, chosen = 2 * (pace.settle_s + pace.idle_s) + pace.heat_s, []
        for rank, place in enumerate(order):
            contender = able[place]
            if rank >= number:
                self._without(contender, OTHER_SHAPE if joules == "none" else NO_FINALIST)
                continue
            needed_s += windows.WINDOWS * (1.1 * (pace.lead_s + pace.window_s) + CALLS_PER_WINDOW * contender.call_s)
            if allowance_s is not None and needed_s > allowance_s:
                time_short = f"{allowance_s:.0f} s are left for energy, and windows up to this kernel take {needed_s:.0f} s"
                self._without(contender, f"no joules: {time_short}")
            else:
                chosen.append(contender)
        return chosen

    def _without(self, contender: Contender, reason: str) -> None:
        """Keep the power, and say why there are no joules; where there is no power either, that reason says more."""
        energy = contender.measurement.energy
        if energy is not None and energy.power_w is not None:
            contender.measurement.energy = msgspec.structs.replace(energy, reason=reason)

    def _work(self, contender: Contender) -> BackToBack:
        run, portion = contender.run, max(1, round(self.portion_s / max(contender.call_s, 1e-9)))
        assert run is not None

        def take(count: int) -> Sequence[object]:
            return contender.slots(self.pool, self.pool.take(count))

        if contender.setup.device.type == "cuda":
            ahead = AHEAD if contender.call_s < LONG_CALL_S else 1
            return DeviceRun(run, take, portion, cuda_mark, self.stand.clock, ahead=ahead)
        return HostRun(run, take, portion)

    def _guarded(self, contender: Contender, work: Callable[[], None]) -> bool:
        """Do it in the contender's name; false when the kernel raised, which is noted."""
        self.running, started, fine = contender.index, self.stand.clock.now(), True
        try:
            work()
        except (Stopped, _TimeUp, CounterError):
            self._ran(contender, started)
            raise
        except BaseException as error:  # noqa: BLE001 - a kernel may raise anything, SystemExit too: it costs that kernel only
            self.stand.clock.synchronize()  # raises again where the device is lost, with the kernel still marked whose doing that was
            self.broken.append((contender, error))
            fine = False
        self._ran(contender, started)
        return fine

    def _ran(self, contender: Contender, started: float) -> None:
        self.running = -1
        self.mark(-1)
        contender.note("energy", self.stand.clock.now() - started)

    def _tick(self) -> None:
        self.mark(self.running)
        if self.stop():
            raise Stopped
        if self.until_s is not None and self.stand.clock.now() > self.until_s:
            raise _TimeUp
