"""A whole group on a made-up device: who gets power and joules, in which order, and what stops, fails or takes too long."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kerneldyno.bench import energy
from kerneldyno.bench.contender import Contender, Sample
from kerneldyno.bench.instruments.clock import FakeClock
from kerneldyno.bench.instruments.energy import RAPL_PACE, FakeMeter, NoMeter
from kerneldyno.bench.instruments.watch import NoWatch, Reading
from kerneldyno.bench.manifest import PROTOCOLS
from kerneldyno.bench.plan import make
from kerneldyno.bench.pool import Pool
from kerneldyno.bench.records import Measurement
from kerneldyno.bench.stopping import StoppingRule, WarmUp
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device, Setup, kernel

PROBLEM = Attention(batch=1, heads=1, q_len=4, head_dim=8)
IDLE_W = 60.0
KINDS = {"first": (0.010, 300.0), "second": (0.012, 200.0), "third": (0.015, 400.0), "loose": (0.005, 250.0)}
"""Seconds per call and watts of each kernel."""


class Bench:
    """The contenders of one group after their rounds, and all that was seen of the measuring."""

    def __init__(self, names=("first", "second", "third", "loose"), *, watch=None, **device) -> None:
        self.clock = FakeClock()
        self.meter = FakeMeter(self.clock, **{"idle_w": IDLE_W, "phase_s": 0.013, **device})
        self.watch = watch or NoWatch()
        self.order: list[str] = []
        """Who ran, without repetition."""
        self.ran_s = 0.0
        self.rests = 0
        """Pauses that are long enough for idle power."""
        self.windows: list[str] = []
        """Whose answer was looked at, after each window."""
        self.marks: list[int] = []
        self.raises: dict[str, int] = {}
        self.pool = Pool([PROBLEM.inputs(seed, torch.device("cpu")) for seed in range(2)], 2)
        self.contenders = [self._contender(index, name) for index, name in enumerate(names)]

    def _contender(self, index: int, name: str) -> Contender:
        def build(problem, setup):
            return lambda inputs: inputs.q

        build.__name__ = name
        loose = name == "loose"
        claim = (lambda problem, setup, inputs: inputs.q) if loose else None
        made = kernel(Attention, approximate=loose, claim=claim)(build)
        case = make([made], [PROBLEM], Device("cpu"), seed=0).cases[0]
        contender = Contender(
            index=index,
            case=case,
            kernel=made,
            problem=PROBLEM,
            setup=Setup(torch.device("cpu")),
            measurement=Measurement(case=case.id, status="ok"),
            rule=StoppingRule(PROTOCOLS["smoke"]),
            warm=WarmUp(PROTOCOLS["smoke"]),
        )
        contender.call_s, watts = KINDS[name]
        contender.samples = [Sample(0, contender.call_s, None, None)] * 3
        calls = 0

        def run(inputs):
            nonlocal calls
            calls += 1
            if calls > self.raises.get(name, calls):
                raise RuntimeError("worn out")
            if self.order[-1:] != [name]:
                self.order.append(name)
            if self.clock.now() - self.ran_s > 4.0:
                self.rests += 1
            self.meter.work(contender.call_s, watts)
            self.ran_s = self.clock.now()
            return inputs.q

        contender.run = run
        contender.glance = lambda answered, rng: self.windows.append(name)
        return contender

    def measure(self, joules="finalists", *, choice="auto", allowance_s=None, stop=lambda: False, meter=None):
        self.broken = energy.measure_group(
            self.contenders,
            self.pool,
            self.clock,
            meter or self.meter,
            self.watch,
            np.random.default_rng(7),
            choice=choice,
            joules=joules,
            allowance_s=allowance_s,
            stop=stop,
            mark=self.marks.append,
            sleep=self.clock.advance,
        )
        found = {contender.kernel.name.partition("/")[2]: contender.measurement for contender in self.contenders}
        self.measurements = SimpleNamespace(**found)
        return SimpleNamespace(**{name: measurement.energy for name, measurement in found.items()})


def test_finalists_get_joules_and_the_others_power_and_a_reason() -> None:
    bench = Bench()
    found = bench.measure()
    for name in ("first", "second", "loose"):
        (call_s, watts), own = KINDS[name], getattr(found, name)
        assert (own.valid, own.reason, own.source) == (True, None, "fake total energy")
        assert own.energy_j == pytest.approx(watts * call_s, rel=0.005)
        assert own.net_energy_j == pytest.approx((watts - IDLE_W) * call_s, rel=0.01)
        assert own.power_w == pytest.approx(watts, rel=0.005)
        assert own.idle_w == pytest.approx(IDLE_W, rel=0.01)
        assert len(own.windows_j) == 4
        assert own.updates >= 200
        assert own.readings_ratio == pytest.approx(1.0, abs=0.01)
    third = found.third
    assert (third.power_w, third.source) == (pytest.approx(400.0), "fake power_instant (indicative)")
    assert (third.energy_j, third.valid) == (None, None)
    assert third.reason == energy.NO_FINALIST
    assert bench.broken == []
    assert [measurement.warnings for measurement in vars(bench.measurements).values()] == [[]] * 4
    assert all(measurement.phases_s["energy"] > 1 for measurement in vars(bench.measurements).values())


def test_idle_power_is_taken_before_and_after() -> None:
    bench = Bench(("first", "second"))
    bench.measure()
    assert bench.rests == 1
    assert bench.clock.now() - bench.ran_s > 4.0


def test_windows_come_in_rounds_of_random_order() -> None:
    bench = Bench(("first", "second", "third"))
    bench.measure("all")
    rounds = [bench.windows[i : i + 3] for i in range(0, 12, 3)]
    assert len(bench.windows) == 12
    assert [sorted(one) for one in rounds] == [["first", "second", "third"]] * 4
    assert len({tuple(one) for one in rounds}) > 1


@pytest.mark.parametrize(("joules", "with_joules"), [("none", 0), ("finalists", 3), ("all", 4)])
def test_who_is_asked_for(joules, with_joules) -> None:
    found = vars(Bench().measure(joules))
    assert sum(own.energy_j is not None for own in found.values()) == with_joules
    assert all(own.power_w is not None for own in found.values())
    if joules == "none":
        assert {own.reason for own in found.values()} == {energy.OTHER_SHAPE}


def test_switched_off_or_without_a_meter_nothing_runs() -> None:
    bench = Bench()
    assert {own.reason for own in vars(bench.measure(choice="off")).values()} == {"not measured: --energy off"}
    assert {own.reason for own in vars(bench.measure(meter=NoMeter("not measured: no meter"))).values()} == {"not measured: no meter"}
    assert (bench.order, bench.clock.now()) == ([], 0.0)


def test_when_time_is_short_the_most_wanted_come_first_and_the_others_say_so() -> None:
    bench = Bench()
    found = bench.measure(allowance_s=75.0)
    assert (found.first.valid, found.second.valid) == (True, True)
    assert (found.loose.energy_j, found.loose.power_w) == (None, pytest.approx(250.0))
    assert found.loose.reason == "no joules: 75 s are left for energy, and windows up to this kernel take 99 s"
    began = bench.clock.now()
    found = bench.measure("all", allowance_s=3.0)
    assert {own.energy_j for own in vars(found).values()} == {None}
    assert bench.clock.now() - began < 6.0


def test_an_allowance_is_kept_even_when_the_device_does_not_come_to_temperature() -> None:
    bench = Bench(("first", "second"))
    bench.watch = SimpleNamespace(read=lambda: Reading(temperature_c=20.0 + 0.5 * bench.clock.now()))
    found = bench.measure(allowance_s=75.0)
    assert bench.clock.now() < 75.0 + 3.0  # power is not in it
    for own in (found.first, found.second):
        assert own.energy_j is not None
        assert own.valid is False
        assert " of 4 windows: the 75 s that they may take were over" in own.reason
        assert "a window started at" in own.reason


def test_a_device_that_is_hotter_than_at_first_makes_windows_invalid() -> None:
    bench = Bench(("first",))
    bench.watch = SimpleNamespace(read=lambda: Reading(temperature_c=50.0 if bench.clock.now() < 25 else 70.0))
    found = bench.measure()
    assert found.first.valid is False
    assert "a window started at 70 °C, the first of the group at 50 °C" in found.first.reason
    assert (found.first.temperature_low_c, found.first.temperature_high_c) == (50.0, 70.0)
    (warning,) = bench.measurements.first.warnings
    assert warning.code == "energy"
    assert warning.text == f"invalid energy window: {found.first.reason.removeprefix('not valid: ')}"


def test_a_throttled_device_makes_windows_invalid() -> None:
    hot = SimpleNamespace(read=lambda: Reading(reasons=("power brake",)))
    found = Bench(("first",), watch=hot).measure()
    assert (found.first.valid, found.first.throttled_share) == (False, pytest.approx(1.0, abs=0.02))
    assert found.first.energy_j == pytest.approx(3.0, rel=0.01)


def test_a_stop_leaves_what_is_there_and_says_so() -> None:
    bench = Bench(("first", "second"))
    found = bench.measure(stop=lambda: bench.clock.now() > 30.0)
    assert bench.clock.now() < 30.5
    for own in (found.first, found.second):
        assert own.valid is False
        assert own.reason.startswith("not valid: 1 of 4 windows: the run was stopped")
        assert own.energy_j is not None
        assert own.net_energy_j is not None


@pytest.mark.parametrize(("stop_s", "power"), [(0.0, False), (4.0, True)])
def test_an_early_stop_leaves_reasons(stop_s, power) -> None:
    bench = Bench(("first", "second"))
    found = bench.measure(stop=lambda: bench.clock.now() >= stop_s)
    for own in (found.first, found.second):
        assert (own.energy_j, own.power_w is not None) == (None, power)
        assert own.reason == ("no joules: the run was stopped" if power else "not measured: the run was stopped")


def test_a_kernel_without_samples_is_not_run() -> None:
    bench = Bench(("first", "second"))
    bench.contenders[1].samples = []
    found = bench.measure()
    assert set(bench.order) == {"first"}
    assert found.second.reason == "not measured: the run was stopped"


@pytest.mark.parametrize("calls", [50, 700])
def test_a_kernel_that_raises_is_told_and_costs_only_itself(calls) -> None:
    bench = Bench()
    bench.raises["second"] = calls
    found = bench.measure()
    ((contender, error),) = bench.broken
    assert (contender.kernel.name, str(error)) == ("attention/second", "worn out")
    assert found.first.valid
    assert found.loose.valid
    assert (found.third.valid is True) == (calls == 50)  # it takes the place of one that fell before


def test_a_device_that_is_lost_ends_the_worker_with_the_kernel_marked_that_lost_it(monkeypatch) -> None:
    bench = Bench()
    bench.raises["second"] = 700

    def lost() -> None:
        if bench.marks[-1] == 1:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(bench.clock, "synchronize", lost)
    with pytest.raises(RuntimeError, match="CUDA error"):
        bench.measure()
    assert bench.marks[-1] == 1


def test_the_first_window_is_taken_warm() -> None:
    bench = Bench(("first", "second"))
    reads: list[float] = []

    def read() -> Reading:
        reads.append(bench.clock.now())
        return Reading(temperature_c=50.0)

    bench.watch = SimpleNamespace(read=read)
    bench.measure()
    assert reads[0] > 16.0  # power, rest, and ten seconds of heating


def test_a_wrong_answer_between_windows_is_told() -> None:
    bench = Bench(("first",))

    def glance(answered, rng):
        assert answered.plain().shape == (1, 1, 4, 8)
        raise ValueError("wrong")

    bench.contenders[0].glance = glance
    bench.measure()
    assert [str(error) for _, error in bench.broken] == ["wrong"]


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (lambda now, joules: 5.0, "no joules: the energy counter (fake total energy) did not move in 5.0 s"),
        (lambda now, joules: None, "no joules: the energy counter (fake total energy) could not be read"),
    ],
)
def test_a_counter_that_fails_costs_joules_and_not_power(shown, reason) -> None:
    bench = Bench(("first", "second"), shown=shown)
    found = bench.measure()
    for own in (found.first, found.second):
        assert own.power_w is not None
        assert (own.energy_j, own.reason) == (None, reason)
    assert bench.broken == []


def test_a_counter_that_is_reset_during_a_window_costs_the_kernel_that_ran() -> None:
    bench = Bench(("first", "second"), shown=lambda now, joules: joules if now < 33 else joules - 999)
    found = bench.measure()
    hit, spared = sorted((found.first, found.second), key=lambda own: bool(own.valid))
    assert (hit.valid, spared.valid) == (False, True)
    assert "of 4 windows: the energy counter (fake total energy) went backwards" in hit.reason
    assert hit.energy_j > 0


def test_without_any_reading_there_is_neither() -> None:
    found = Bench(("first",), instant=None, shown=lambda *_: 7.0).measure()
    assert (found.first.power_w, found.first.energy_j) == (None, None)
    assert found.first.reason == "not measured: the energy counter (fake total energy) did not move in 5.0 s"


def test_a_millisecond_counter_takes_seconds_for_a_group() -> None:
    bench = Bench(period_s=0.001, phase_s=0.0, instant=None, pace=RAPL_PACE)
    found = bench.measure()
    assert bench.clock.now() < 15.0
    assert (found.first.valid, found.third.source) == (True, "fake total energy (indicative)")
    assert found.first.energy_j == pytest.approx(3.0, rel=0.01)


def test_the_flight_recorder_hears_who_runs() -> None:
    bench = Bench(("first", "second"))
    bench.measure()
    assert set(bench.marks) == {-1, 0, 1}
    assert bench.marks[-1] == -1
    assert len(bench.marks) > 1000  # often enough for a hang to be noticed
