"""The clocks: virtual time to test the logic, a simulated GPU to test holding, and the real ones where nothing can flake."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.bench.instruments.cache import SETTLE_S, CpuCache
from kerneldyno.bench.instruments.clock import CpuClock, FakeClock
from kerneldyno.bench.instruments.cudaclock import CudaClock

on_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]


def test_the_virtual_clock_reports_what_the_calls_advanced() -> None:
    clock = FakeClock()
    called = []

    def run(seconds: float) -> str:
        called.append(seconds)
        clock.advance(seconds)
        return f"after {seconds}"

    timing = clock.time(run, [1.0, 2.0, 6.0])
    assert timing.seconds == pytest.approx(3.0)
    assert timing.output == "after 6.0"
    assert timing.host_seconds is None
    assert called == [1.0, 2.0, 6.0]
    assert clock.now() == pytest.approx(9.0)


def test_the_virtual_clock_plays_its_noise_once() -> None:
    clock = FakeClock([1.5, 0.5])
    seconds = [clock.time(clock.advance, [2.0]).seconds for _ in range(3)]
    assert seconds == pytest.approx([3.0, 1.0, 2.0])


@settings(deadline=None)
@given(call_s=st.floats(1e-9, 10.0), resolution_s=st.floats(1e-9, 1e-4))
def test_a_sample_on_the_cpu_is_as_long_as_it_must_be_and_no_longer(call_s: float, resolution_s: float) -> None:
    calls = FakeClock(resolution_s=resolution_s).calls_for(call_s)
    wanted = max(1e-3, 1000 * resolution_s)
    assert calls == 1 or (calls - 1) * call_s <= wanted
    assert calls * call_s >= wanted * 0.999999


def test_the_wall_clock_is_never_shorter_than_a_sleep() -> None:
    timing = CpuClock().time(time.sleep, [0.002, 0.002, 0.002])
    assert timing.seconds >= 0.002
    assert timing.host_seconds is None


def test_the_wall_clock_calls_each_input_once_in_order_and_keeps_the_last_output() -> None:
    seen = []

    def run(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return x

    inputs = [torch.tensor(i) for i in range(5)]
    timing = CpuClock().time(run, inputs)
    assert [x.item() for x in seen] == [0, 1, 2, 3, 4]
    assert timing.output is inputs[-1]


@pytest.mark.parametrize("was_on", [True, False])
def test_no_garbage_is_collected_in_a_sample(was_on: bool) -> None:
    before = gc.isenabled()
    try:
        gc.enable() if was_on else gc.disable()
        assert CpuClock().time(lambda _: gc.isenabled(), [0]).output is False
        assert gc.isenabled() is was_on
        with pytest.raises(ZeroDivisionError):
            CpuClock().time(lambda _: 1 // 0, [0])
        assert gc.isenabled() is was_on
    finally:
        gc.enable() if before else gc.disable()


def test_the_wall_clock_knows_its_resolution() -> None:
    clock = CpuClock()
    assert 0 < clock.resolution_s < 1e-3
    earlier = clock.now()
    clock.synchronize()
    assert clock.now() >= earlier


def small_cache() -> CpuCache:
    return CpuCache(cache_bytes=lambda: 2**20, free_bytes=lambda: 2**40)


def test_cold_calls_on_the_cpu_find_emptied_caches_each() -> None:
    cache, swept = small_cache(), []
    sweep, cache.sweep = cache.sweep, lambda: swept.append(len(called)) or sweep()
    called: list[int] = []
    timing = CpuClock(cache).time(called.append, [1, 2, 3], cold=True)
    assert called == [1, 2, 3]
    assert swept == [0, 1, 2]  # before each call
    assert timing.seconds < SETTLE_S  # the sweep is not timed
    CpuClock(cache).time(called.append, [4])
    assert len(swept) == 3


def test_a_sweep_reads_twice_the_cache_but_leaves_memory_to_others() -> None:
    assert small_cache().sweep_bytes == 2 * 2**20
    assert CpuCache(cache_bytes=lambda: None, free_bytes=lambda: 2**40).sweep_bytes == 64 * 2**20
    assert CpuCache(cache_bytes=lambda: 2**30, free_bytes=lambda: 2**28).sweep_bytes == 2**26


def test_the_buffer_of_a_sweep_is_allocated_when_it_is_needed_and_once() -> None:
    cache = small_cache()
    assert cache._buffer is None
    cache.sweep()
    buffer = cache._buffer
    assert buffer is not None
    assert buffer.nbytes == cache.sweep_bytes == 2 * 2**20
    assert bool((buffer != 0).all())  # pages that were never written would all be one page
    cache.sweep()
    assert cache._buffer is buffer


def test_the_virtual_clock_knows_cold_from_warm() -> None:
    clock = FakeClock(sweep_s=1.0, cold_factor=2.0)
    assert clock.time(clock.advance, [3.0]).seconds == pytest.approx(3.0)
    assert clock.now() == pytest.approx(3.0)
    assert clock.time(clock.advance, [3.0], cold=True).seconds == pytest.approx(6.0)
    assert clock.now() == pytest.approx(7.0)


@dataclass
class SimulatedGpu:
    """One stream and the host, in virtual time: launches cost the host, work costs the device."""

    t: float = 0.0
    free_at: float = 0.0
    side_free_at: float = 0.0
    flushes: int = 0
    holds: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.t

    def synchronize(self) -> None:
        self.t = max(self.t, self.free_at, self.side_free_at)

    def event(self) -> SimulatedEvent:
        return SimulatedEvent(self)

    def hold(self, seconds: float) -> None:
        self.holds.append(seconds)
        self.work(seconds)

    def flush(self) -> None:
        self.flushes += 1
        self.work(50e-6)

    def work(self, seconds: float, launch_s: float = 0.0) -> None:
        self.t += launch_s
        self.free_at = max(self.free_at, self.t) + seconds

    def side_work(self, seconds: float) -> None:
        """On another stream, ordered behind this one, which does not wait for it."""
        self.side_free_at = max(self.free_at, self.side_free_at, self.t) + seconds


@dataclass
class SimulatedEvent:
    gpu: SimulatedGpu
    at: float = 0.0

    def record(self) -> None:
        self.at = max(self.gpu.t, self.gpu.free_at)

    def query(self) -> bool:
        return self.at <= self.gpu.t

    def synchronize(self) -> None:
        self.gpu.t = max(self.gpu.t, self.at)

    def seconds_until(self, end: SimulatedEvent) -> float:
        return end.at - self.at


@pytest.fixture
def gpu() -> SimulatedGpu:
    return SimulatedGpu()


@pytest.fixture
def clock(gpu: SimulatedGpu) -> CudaClock:
    return CudaClock("cuda", api=gpu)


def test_a_held_stream_shows_device_time_without_launch_gaps(gpu, clock) -> None:
    def run(x):
        gpu.work(3e-6, launch_s=40e-6)
        return x

    for _ in range(3):
        timing = clock.time(run, list(range(20)), cold=True)
        assert timing.seconds == pytest.approx(3e-6)
        assert timing.held
        assert timing.output == 19
        assert timing.host_seconds == pytest.approx(40e-6, rel=0.1)  # the host is what an unheld caller waits for
    assert min(gpu.holds[-2:]) >= 1.5 * 20 * 40e-6 * 0.999


def test_a_sample_that_began_before_it_was_queued_is_retaken_with_a_longer_hold(gpu, clock) -> None:
    calls = []

    def run(x):
        calls.append(x)
        gpu.work(1e-6, launch_s=1e-3)  # ten times longer to queue than the first hold lasts

    timing = clock.time(run, ["x"])
    assert timing.seconds == pytest.approx(1e-6)
    assert timing.held
    assert gpu.holds == pytest.approx([1e-4, 1.5e-3])
    assert calls == ["x", "x"]
    clock.time(run, ["x"])
    assert gpu.holds == pytest.approx([1e-4, 1.5e-3, 1.5e-3])  # it is known by now


def test_a_call_that_waits_for_the_device_cannot_be_held_and_says_so(gpu, clock) -> None:
    def run(_):
        gpu.work(2e-3, launch_s=10e-6)
        gpu.synchronize()

    timing = clock.time(run, ["x"])
    assert not timing.held
    assert timing.seconds == pytest.approx(2e-3 + 10e-6)
    assert len(gpu.holds) <= CudaClock.RETAKES + 1
    taken = len(gpu.holds)
    clock.time(run, ["x"])
    assert len(gpu.holds) == taken


def test_long_sequences_are_held_in_portions(gpu, clock) -> None:
    def run(_):
        gpu.work(5e-6, launch_s=100e-6)

    timing = clock.time(run, [None] * 100)
    assert timing.seconds == pytest.approx(5e-6)
    assert max(gpu.holds) <= 1.5 * 20 * 100e-6 * 1.001


def test_short_calls_share_a_pair_of_events_even_when_they_are_slow_to_queue(gpu, clock) -> None:
    def run(_):
        gpu.work(4e-6, launch_s=300e-6)  # portions of CHUNK_S would hold seven

    clock.time(run, [None] * 2)
    gpu.holds.clear()
    timing = clock.time(run, [None] * 20)
    assert timing.seconds == pytest.approx(4e-6)
    assert len(gpu.holds) == 1


def test_cold_samples_empty_the_cache_and_warm_ones_do_not(gpu, clock) -> None:
    clock.time(lambda _: gpu.work(1e-3), ["x"])
    assert gpu.flushes == 0
    timing = clock.time(lambda _: gpu.work(1e-3), ["x"], cold=True)
    assert gpu.flushes == 2  # once for the device's time, once for the host's
    assert timing.seconds == pytest.approx(1e-3)


def test_the_host_pass_belongs_to_cold_samples_only(gpu, clock) -> None:
    assert clock.time(lambda _: gpu.work(1e-3), ["x"]).host_seconds is None
    assert clock.time(lambda _: gpu.work(1e-3, 1e-4), ["x"], cold=True).host_seconds == pytest.approx(1.1e-3)


def test_work_on_another_stream_that_outlives_the_last_event_is_counted(gpu, clock) -> None:
    def run(_):
        gpu.work(1e-5)
        gpu.side_work(5e-3)

    assert clock.time(run, ["x"]).seconds == pytest.approx(5e-3, rel=0.01)


def test_callees_that_cannot_be_referred_to_weakly_are_timed_too(gpu, clock) -> None:
    class Callee:
        __slots__ = ()

        def __call__(self, _):
            gpu.work(1e-5)

    assert clock.time(Callee(), ["x"]).seconds == pytest.approx(1e-5)


def test_short_cuda_calls_are_timed_many_at_a_time(clock) -> None:
    assert clock.calls_for(5e-6) >= 20
    assert clock.calls_for(10e-6) == 1


@pytest.mark.parametrize("cold", [pytest.param(True, marks=on_gpu), pytest.param(False, marks=on_gpu)])
def test_a_real_gpu_takes_the_time_of_a_known_copy(cold: bool) -> None:
    clock = CudaClock("cuda:0")
    source = torch.randn(2**26, device="cuda")
    target = torch.empty_like(source)
    clock.time(target.copy_, [source])
    timing = clock.time(target.copy_, [source], cold=cold)
    assert timing.held
    assert 2 * source.nbytes / timing.seconds < 2e13
    if timing.host_seconds is not None:
        assert timing.host_seconds > 0.9 * timing.seconds
    waiting = clock.time(lambda x: x.sum().item(), [source])
    assert not waiting.held
