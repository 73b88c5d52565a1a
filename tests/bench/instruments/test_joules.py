"""Windows of joules on a made-up device whose every watt is known: what they come to, how wrong they can be, what stops them."""

from __future__ import annotations

import time
from statistics import fmean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.bench.instruments.backtoback import DeviceRun, HostRun, cuda_mark
from kerneldyno.bench.instruments.clock import FakeClock
from kerneldyno.bench.instruments.counter import CounterError
from kerneldyno.bench.instruments.energy import RAPL_PACE, FakeMeter, find_meter
from kerneldyno.bench.instruments.joules import PORTION_S, Stand, Stopped
from kerneldyno.bench.instruments.watch import FakeWatch, NoWatch, Reading, find_watch

CALL_S, WATTS, IDLE_W = 0.002, 300.0, 50.0
SLOW = Reading(reasons=("thermal slowdown by the driver",))


class Lab:
    """A stand with a fake device on it."""

    def __init__(self, watch=None, tick=lambda: None, **device) -> None:
        self.clock = FakeClock()
        self.meter = FakeMeter(self.clock, **{"idle_w": IDLE_W, "phase_s": 0.0371, **device})
        self.stand = Stand(self.clock, self.meter, watch or NoWatch(), self.clock.advance, tick)

    def work(self, call_s: float = CALL_S, watts: float = WATTS) -> HostRun:
        portion = max(1, round(PORTION_S / call_s))
        return HostRun(lambda _: self.meter.work(call_s, watts), lambda count: [None] * count, portion)


class Warming:
    """A device that takes the temperature of what it does: 40 °C at rest, 60 °C at work, a degree in so many seconds."""

    def __init__(self, lab: Lab, c: float = 40.0, s_per_degree: float = 0.5) -> None:
        self.lab, self.c, self.s_per_degree = lab, c, s_per_degree
        self.at_s = self.drawn_j = 0.0

    def read(self) -> Reading:
        now = self.lab.clock.now()
        drawn_j = self.lab.meter.drawn_j(now)
        if now > self.at_s:
            busy = ((drawn_j - self.drawn_j) / (now - self.at_s) - IDLE_W) / (WATTS - IDLE_W) > 0.5
            most = (now - self.at_s) / self.s_per_degree
            self.c = min(self.c + most, 60.0) if busy else max(self.c - most, 40.0)
        self.at_s, self.drawn_j = now, drawn_j
        return Reading(temperature_c=self.c)


def test_a_window_begins_and_ends_on_edges_and_lasts_long_enough() -> None:
    lab = Lab()
    window = lab.stand.window(lab.work(), period_s=0.1)
    assert window.seconds >= 5.0 - 1e-9
    assert window.updates >= 50
    assert window.joules / window.calls == pytest.approx(WATTS * CALL_S, rel=window.edge_error)
    assert window.seconds / window.calls == pytest.approx(CALL_S)
    assert 0 < window.edge_error < 0.003  # a look every 10 ms, at each end, of 5 s
    assert window.readings_j == pytest.approx(window.joules, rel=0.003)
    assert window.throttled_s == 0


@settings(max_examples=60, deadline=None)
@given(
    call_s=st.floats(2e-3, 3.0),
    period_s=st.floats(0.02, 0.4),
    phase_s=st.floats(0, 0.4),
    watts=st.floats(60, 700),
    started_s=st.floats(0, 1),
)
def test_joules_per_call_are_right_within_the_error_that_is_told(call_s, period_s, phase_s, watts, started_s) -> None:
    lab = Lab(period_s=period_s, phase_s=phase_s, instant=None)
    lab.stand.rest(started_s)
    work = lab.work(call_s, watts)
    lab.stand.run(work, 2 * period_s)  # the first update still holds idle time
    window = lab.stand.window(work, period_s)
    resolution = 2e-3 / window.joules
    assert window.joules / window.calls == pytest.approx(watts * call_s, rel=window.edge_error + resolution + 1e-9)
    assert window.edge_error <= max(period_s, 0.0101) / window.seconds + 1e-9


def test_a_counter_that_moves_rarely_ends_the_window_in_time() -> None:
    lab = Lab(period_s=1.0)
    window = lab.stand.window(lab.work(), period_s=1.0)
    assert 15.0 - 1e-9 <= window.seconds <= 16.0
    assert window.updates < 20


def test_idle_power_is_that_of_rest_and_tells_how_often_the_counter_moves() -> None:
    lab = Lab(period_s=0.08)
    lab.meter.work(3.0, WATTS)
    idle = lab.stand.idle()
    assert idle.watts == pytest.approx(IDLE_W, rel=0.005)
    assert idle.period_s == pytest.approx(0.08, rel=0.05)
    assert lab.clock.synchronized == 1


def test_a_millisecond_counter_is_read_in_half_a_second() -> None:
    lab = Lab(period_s=0.001, phase_s=0.0, instant=None, pace=RAPL_PACE)
    idle = lab.stand.idle()
    work = lab.work()
    lab.stand.run(work, 0.1)
    window = lab.stand.window(work, idle.period_s)
    assert 0.5 - 1e-9 <= window.seconds < 0.6
    assert window.updates >= 400  # several between two looks
    assert window.edge_error < 0.005
    assert window.joules / window.calls == pytest.approx(WATTS * CALL_S, rel=0.005)
    assert window.readings_j is None


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (lambda now, joules: 1234.0, "did not move in 5.0 s"),
        (lambda now, joules: min(joules, 2000.0), "did not move in 5.0 s"),  # stuck in the middle
        (lambda now, joules: joules if now < 2 else joules - 1000, "went backwards"),
        (lambda now, joules: joules if now < 2 else None, "could not be read"),
        (lambda now, joules: joules if now < 2 else 0.0, "went backwards"),
    ],
)
def test_a_counter_that_fails_gives_a_reason_and_no_number(shown, reason) -> None:
    lab = Lab(shown=shown)
    with pytest.raises(CounterError, match=reason):
        lab.stand.window(lab.work(), period_s=0.1)


def test_a_device_at_rest_with_a_stuck_counter_gives_a_reason() -> None:
    lab = Lab(shown=lambda *_: 7.0)
    with pytest.raises(CounterError, match="did not move"):
        lab.stand.idle()


def test_a_stale_answer_now_and_then_changes_little() -> None:
    """A read may be answered with what was true at the look before: the edge is seen one look later, at either end."""
    answers = [0.0, 0.0]

    def stale(now: float, joules: float) -> float:
        answers.append(answers[-1] if len(answers) % 3 == 0 else joules)
        return answers[-1]

    lab = Lab(shown=stale)
    work = lab.work()
    lab.stand.run(work, 1.0)
    window = lab.stand.window(work, period_s=0.1)
    assert len(answers) > 500
    assert window.joules / window.calls == pytest.approx(WATTS * CALL_S, rel=0.01)


def test_throttled_time_is_counted_from_look_to_look() -> None:
    lab = Lab()
    lab.stand = Stand(lab.clock, lab.meter, Throttling(lab.clock, 2.0, 3.0), lab.clock.advance)
    window = lab.stand.window(lab.work(), period_s=0.1)
    assert window.throttled_s == pytest.approx(1.0, abs=0.15)


class Throttling:
    """Held back between two moments."""

    def __init__(self, clock: FakeClock, start_s: float, end_s: float) -> None:
        self.clock, self.start_s, self.end_s = clock, start_s, end_s

    def read(self) -> Reading:
        return SLOW if self.start_s <= self.clock.now() <= self.end_s else Reading()


def test_the_quota_of_a_container_counts_as_throttling() -> None:
    readings = [Reading(quota_periods=periods) for periods in range(2000)]
    lab = Lab(watch=FakeWatch(readings))
    window = lab.stand.window(lab.work(), period_s=0.1)
    assert window.throttled_s == pytest.approx(window.seconds, rel=0.02)


def test_power_is_the_mean_of_readings_once_the_ramp_is_over_and_is_called_indicative() -> None:
    lab = Lab()
    watts, source = lab.stand.power(lab.work())
    assert (watts, source) == (pytest.approx(WATTS), "fake power_instant (indicative)")
    assert 1.2 <= lab.clock.now() <= 1.3


def test_without_power_readings_a_short_stretch_of_the_counter_is_an_indication() -> None:
    lab = Lab(period_s=0.001, phase_s=0.0, instant=None, pace=RAPL_PACE)
    watts, source = lab.stand.power(lab.work())
    assert (watts, source) == (pytest.approx(WATTS, rel=0.01), "fake total energy (indicative)")
    mute = Lab(instant=None, shown=lambda *_: None)
    with pytest.raises(CounterError, match="could not be read"):
        mute.stand.power(mute.work())


def test_power_readings_of_0_are_none() -> None:
    lab = Lab(instant=0.0)
    assert lab.stand.power(lab.work())[1] == "fake total energy (indicative)"


@pytest.mark.parametrize(("start_c", "wanted_c"), [(40.0, 55.0), (60.0, 45.0), (50.0, 51.0)])
def test_the_device_is_brought_near_the_wanted_temperature(start_c: float, wanted_c: float) -> None:
    lab = Lab()
    warming = Warming(lab, start_c)
    warming.read()
    lab.stand = Stand(lab.clock, lab.meter, warming, lab.clock.advance)
    lab.stand.acclimatise(lab.work(), wanted_c, patience_s=60.0)
    assert warming.read().temperature_c == pytest.approx(wanted_c, abs=2.0)


def test_waiting_for_a_temperature_has_an_end() -> None:
    lab = Lab()
    lab.stand = Stand(lab.clock, lab.meter, Warming(lab), lab.clock.advance)
    lab.stand.acclimatise(lab.work(), 90.0, patience_s=15.0)
    assert 15.0 <= lab.clock.now() <= 18.0


def test_a_device_without_a_thermometer_is_only_run_hot() -> None:
    lab = Lab()
    lab.stand.acclimatise(lab.work(), None, patience_s=15.0)
    lab.stand.acclimatise(lab.work(), 50.0, patience_s=15.0)
    assert lab.clock.now() == pytest.approx(2.0, abs=0.05)


def test_whoever_wants_to_stop_is_heard_at_work_and_at_rest() -> None:
    def until(limit_s: float) -> Lab:
        def tick() -> None:
            if lab.clock.now() > limit_s:
                raise Stopped

        lab = Lab(tick=tick)
        return lab

    for begin in (lambda lab: lab.stand.window(lab.work(), 0.1), lambda lab: lab.stand.idle(), lambda lab: lab.stand.rest(9.0)):
        lab = until(1.0)
        with pytest.raises(Stopped):
            begin(lab)
        assert lab.clock.now() < 1.2


def test_portions_are_long_where_looking_at_the_counter_is_slow() -> None:
    def portion_s(read_s: float) -> float:
        lab = Lab(shown=lambda _, joules: lab.clock.advance(read_s) or joules)
        return lab.stand.portion_s()

    assert [portion_s(read_s) for read_s in (0.0, 0.0004, 0.1)] == pytest.approx([0.01, 0.02, 0.05])


def test_nothing_here_waits_in_earnest() -> None:
    started = time.perf_counter()
    lab = Lab()
    lab.stand.idle()
    lab.stand.window(lab.work(), 0.1)
    assert lab.clock.now() > 9.0
    assert time.perf_counter() - started < 3.0


@pytest.fixture(scope="module")
def five_windows():
    """Of a matrix product on the first GPU, with what is known of the board at rest."""
    from kerneldyno.bench.instruments.cudaclock import CudaClock

    device = torch.device("cuda:0")
    meter = find_meter(device)
    if meter.reason or meter.energy_j() is None:
        pytest.skip(meter.reason or "this GPU's driver counts no energy")
    clock = CudaClock(device)
    stand = Stand(clock, meter, find_watch(device), time.sleep)
    idle = stand.idle()
    a, b = (torch.randn(4096, 4096, device=device, dtype=torch.bfloat16) for _ in range(2))
    call_s = min(clock.time(lambda x: x @ b, [a] * 20).seconds for _ in range(3))
    work = DeviceRun(lambda x: x @ b, lambda count: [a] * count, max(1, round(stand.portion_s() / call_s)), cuda_mark, clock)
    stand.run(work, meter.pace.heat_s)
    taken = []
    for _ in range(5):
        stand.run(work, 1.0)
        taken.append((stand.window(work, idle.period_s), call_s))
    return idle, taken


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_joules_per_call_repeat_on_a_gpu(five_windows) -> None:
    idle, taken = five_windows
    per_call = [window.joules / window.calls for window, _ in taken]
    spread = (max(per_call) - min(per_call)) / fmean(per_call)
    print(f"idle {idle.watts:.1f} W, counter every {idle.period_s * 1e3:.1f} ms; spread of joules per call {spread:.2%}: {per_call}")
    assert spread < 0.05
    for window, call_s in taken:
        assert window.updates >= 20
        assert window.edge_error < 0.02
        assert window.stray_s < 0.01
        assert window.joules / window.seconds > idle.watts
        assert window.seconds / window.calls == pytest.approx(call_s, rel=0.25)  # back to back, at the clocks of full load


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_the_counter_of_a_gpu_agrees_with_the_integral_of_its_power(five_windows) -> None:
    _, taken = five_windows
    ratios = [window.readings_j / window.joules for window, _ in taken if window.readings_j is not None]
    if not ratios:
        pytest.skip("this GPU's driver gives no instantaneous power")
    print(f"joules by power readings over joules by the counter: {ratios}")
    assert ratios == pytest.approx([1.0] * len(ratios), abs=0.10)
