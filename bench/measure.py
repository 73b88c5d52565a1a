"""One group, in one worker process: build, check, count memory, warm up, sample in interleaved rounds, check again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import torch

from kerneldyno.kernels.registry import Kernel, Setup

from . import energy, judge, steps
from .contender import Contender
from .gate.conduct import Lingers, left_alone
from .gate.examine import Gate
from .gate.state import DRAWN_IN_BUILDS, Snapshot
from .gate.threads import Threads
from .gate.verify import judged
from .instruments.clock import Clock
from .instruments.energy import PowerMeter
from .instruments.watch import Reading, Watch, slowdowns
from .messages import Channel, Doing, Done, Found, Recorder, Request
from .outcomes import outcome
from .pool import Pool
from .records import Case, Ceilings, Clocks, Measurement, Phase, Status, Warn
from .rounds import Rounds
from .stopping import StoppingRule, WarmUp

FEWEST_SAMPLES = 3
"""Below this an interrupted case is left for the next time instead of being recorded."""
BEFORE_THE_ROUNDS = ("build", "check", "memory", "warmup")
BUILDING = ("build", "check", "identify", "memory")
"""Phases in which kernels are built: they may draw random numbers there."""
CACHES_PER_POOL = 5
MOST_SLOTS = 64
Step = Callable[[Contender], None]


class Interrupted(Exception):
    """The worker ends before all is measured: the parent asked for it, or the process is spoilt."""


@dataclass(frozen=True)
class Instruments:
    """What the measurer reads the machine with; tests put fakes here."""

    clock: Clock
    meter: PowerMeter
    watch: Watch
    ceilings: Callable[[str], Ceilings]
    """Measures again what the machine can do with a dtype."""


class GroupMeasurer:
    """Takes one problem's kernels through all phases: each phase may cost a contender, none costs the group."""

    def __init__(
        self,
        request: Request,
        kernels: Mapping[str, Kernel],
        channel: Channel,
        recorder: Recorder,
        instruments: Instruments,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.request = request
        self.kernels = kernels
        self.channel = channel
        self.recorder = recorder
        self.clock = instruments.clock
        self.meter = instruments.meter
        self.watch = instruments.watch
        self.measure_ceilings = instruments.ceilings
        self.ceilings = request.ceilings
        self.stop = stop
        self.protocol = request.settings.protocol
        self.phases_s: dict[str, float] = {}
        self.dropped_rounds = 0
        self.threads = Threads()
        self.import_changes: list[str] = []
        """Global state that the files of --load changed when they were imported."""
        self.rng = np.random.default_rng([request.settings.seed, request.worker])
        first = request.cases[0]
        self.device = torch.device(first.device)
        self.problem = kernels[first.entry].problem(**first.problem)

    def measure(self) -> None:
        """All phases in order; what came out of each case is said as soon as it is known."""
        contenders = list(self._admitted())
        with self._phase("start"):
            self.pool = Pool(self.gate.variants, self._slots(), self.problem)
        self._each(contenders, "warmup", lambda contender: steps.warm_up(contender, self.pool, self.clock, self.stop))
        before = self.watch.read()
        self._rounds(contenders)
        after = self.watch.read()
        if self.request.first:
            self._count_energy(contenders)
            if self._identifies_late():
                self._identify(contenders)
        self._each(contenders, "recheck", lambda contender: self._conclude(contender, before, after))

    def check(self) -> None:
        """The gate alone: build, check, identify; what came out of each case is said as soon as it is known."""
        for contender in self._admitted():
            contender.release()
            self.channel.say(Done(contender.measurement))

    def _admitted(self) -> Iterator[Contender]:
        """The contenders that pass the gate, one after the other; what is the same for all of them is made first."""
        with self._phase("start"):
            request, setup = self.request, Setup(self.device, seed=self.request.settings.seed)
            timed, known = request.kind == "group", request.known_awkward
            self.gate = Gate(self.problem, setup, seed=setup.seed, thorough=not timed, known_awkward=known, rechecked=timed)
        for i, case in enumerate(request.cases):
            if contender := self._admit(i, case):
                yield contender
        self.gate.prober.forget()

    def _admit(self, index: int, case: Case) -> Contender | None:
        """Build, check and count memory; None when that already ended the case."""
        contender = Contender(
            index=index,
            case=case,
            kernel=self.kernels[case.entry],
            problem=self.problem,
            setup=self.gate.setup,
            measurement=Measurement(case=case.id, status="ok"),
            rule=StoppingRule(self.protocol),
            warm=WarmUp(self.protocol),
        )
        if self.import_changes and not contender.kernel.shipped:
            text = f"its file changed {', '.join(self.import_changes)} when it was imported: that was put back"
            contender.measurement.warnings.append(Warn("global-state", text))
        alive = [contender]
        first = self.request.first
        self._each(alive, "build", lambda contender: steps.build(contender, self.gate, self.clock, "cold" if first else "warm"))
        self._each(alive, "check", lambda contender: steps.check_output(contender, self.gate))
        if first and not self._identifies_late():
            self._identify(alive)
        if first and self.request.kind == "group":
            self._each(alive, "memory", lambda contender: steps.count_memory(contender, self.gate.truths[0]))
        return contender if alive else None

    def _identify(self, contenders: list[Contender]) -> None:
        """See what runs; a kernel that is not what its name says ends here."""
        self._each(contenders, "identify", lambda contender: steps.identify(contender, self.gate.truths[0]))

    def _identifies_late(self) -> bool:
        """On a GPU after everything that is timed: its profiler may leave something behind that slows down launches."""
        return self.device.type == "cuda" and self.request.kind == "group"

    def _each(self, contenders: list[Contender], phase: Phase, step: Step) -> None:
        """Do one step for every contender; one that raises is recorded with its reason and leaves the list."""
        for contender in list(contenders):
            if self.stop() and phase in BEFORE_THE_ROUNDS:
                raise Interrupted
            self.channel.say(Doing(contender.case.id, phase))
            self._guarded(contender, contenders, phase, step)

    def _guarded(self, contender: Contender, contenders: list[Contender], phase: Phase, step: Step) -> None:
        self.recorder.mark(contender.index)
        started = time.perf_counter()
        try:
            with self._phase(phase), left_alone(silent=DRAWN_IN_BUILDS if phase in BUILDING else ()):
                step(contender)
            self.gate.untouched()
        except Interrupted:
            raise
        except BaseException as error:  # noqa: BLE001 - a kernel may raise anything, SystemExit too: it costs that kernel only
            self.gate.instruments.restore()
            self._drop(contender, contenders, *outcome(error, phase))
            self._give_up_if_spoilt(error)
        finally:
            self.recorder.clear()
            self.threads.note(contender.index)
            contender.note(phase, time.perf_counter() - started)

    def _drop(self, contender: Contender, contenders: list[Contender], status: Status, reason: str) -> None:
        contenders.remove(contender)
        contender.measurement.status, contender.measurement.reason = status, reason
        contender.release()
        self.channel.say(Done(contender.measurement))
        if self.device.type == "cuda":
            with suppress(RuntimeError):  # after an illegal access every call raises
                torch.cuda.empty_cache()

    def _give_up_if_spoilt(self, error: BaseException) -> None:
        """Raise Interrupted when this process cannot measure the others any more: the parent goes on with them in a new one.

        Something is still at work in it, or its CUDA context is broken.
        """
        if isinstance(error, Lingers):
            raise Interrupted
        if self.device.type == "cuda":
            try:
                torch.cuda.synchronize(self.device)
            except RuntimeError as broken:
                raise Interrupted from broken

    def _slots(self) -> int:
        """Two; more where a GPU sample is made of many calls, which would otherwise find their inputs in the cache."""
        if self.device.type != "cuda":
            return 2
        cache = torch.cuda.get_device_properties(self.device).L2_cache_size
        return int(np.clip(np.ceil(CACHES_PER_POOL * cache / max(self.gate.variants[0].nbytes, 1)), 2, MOST_SLOTS))

    def _rounds(self, contenders: list[Contender]) -> None:
        """Sample all of them side by side; one that fails meanwhile is recorded with its reason and leaves the list."""
        for contender in contenders:
            self.channel.say(Doing(contender.case.id, "timing"))
        rounds = Rounds(self.pool, self.clock, self.watch, self.recorder, self.gate, self.rng, self.threads)
        with self._phase("timing"):
            for lost in rounds.sample(contenders, self.stop):
                error = rounds.errors[lost.index]
                self._drop(lost, contenders, *outcome(error, "timing"))
                self._give_up_if_spoilt(error)
        self.dropped_rounds = rounds.dropped

    def _count_energy(self, contenders: list[Contender]) -> None:
        """Power and joules in calls of their own; when it is stopped, what was sampled is still to be checked and said."""
        for contender in contenders:
            self.channel.say(Doing(contender.case.id, "energy"))
        request, read = self.request, (self.pool, self.clock, self.meter, self.watch, self.rng)
        with self._phase("energy"):
            broken = energy.measure_group(
                contenders,
                *read,
                choice=request.settings.energy,
                joules=request.joules,
                allowance_s=request.joules_allowance_s,
                stop=self.stop,
                mark=self.recorder.mark,
            )
        for contender, error in broken:
            self._drop(contender, contenders, *outcome(error, "energy"))

    def _conclude(self, contender: Contender, before: Reading, after: Reading) -> None:
        """Check the last timed output, judge the samples, and say the measurement."""
        hot = judge.throttled(contender, self.dropped_rounds)
        if contender.last is None or (len(contender.samples) < FEWEST_SAMPLES and not hot):
            return  # interrupted before it was measured: a resumed run takes it up again
        answer, standard = contender.last.plain(), contender.standards[contender.last.variant]
        if not contender.symmetric:  # what it answers is right or wrong for the disguised inputs themselves
            answer, standard = contender.last.answer, self.gate.standard(contender.kernel, contender.last.inputs)
        judged(answer, standard, contender.setup, approximate=contender.kernel.approximate)
        self.gate.forgets(contender.whole, contender.call_s)
        measurement = contender.measurement
        measurement.processes = [contender.process(self.request.worker)]
        measurement.clocks = Clocks(
            before_mhz=before.mhz,
            after_mhz=after.mhz,
            temperature_c=after.temperature_c,
            throttle_reasons=slowdowns(before, after),
            dropped_rounds=self.dropped_rounds,
        )
        measurement.warnings += judge.warnings(contender, self.protocol, stopped=self.stop()) + judge.disturbances(before, after)
        if reason := hot or self._implausible(contender):
            measurement.status, measurement.reason = "invalid", reason
        contender.release()
        self.channel.say(Done(measurement))

    def _implausible(self, contender: Contender) -> str | None:
        """Whether the rate is beyond this machine; its ceiling is measured again before anything is called that.

        The first time, at the start of the run, something else may have kept the machine busy.
        """
        case, samples_s = contender.case, contender.measurement.samples_s
        distance = contender.measurement.distance
        if self.ceilings and judge.implausible(case, samples_s, self.ceilings, distance):
            before = Snapshot.now()
            self.ceilings = self.ceilings.best_of(self.measure_ceilings(case.dtype))
            before.restore()  # random matrices are drawn for it
            self.channel.say(Found(self.ceilings))
        return judge.implausible(case, samples_s, self.ceilings, distance)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.phases_s[name] = self.phases_s.get(name, 0.0) + time.perf_counter() - started
