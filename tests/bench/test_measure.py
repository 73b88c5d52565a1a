"""One group through all phases, with a fake clock: rounds, stopping, who is dropped and why, what is recorded."""

from __future__ import annotations

import os

import msgspec
import pytest
import torch
import torch.nn.functional as F

from kerneldyno.bench.instruments.clock import FakeClock
from kerneldyno.bench.instruments.energy import NoMeter
from kerneldyno.bench.instruments.watch import FakeWatch, NoWatch, Reading
from kerneldyno.bench.manifest import PROTOCOLS, Settings
from kerneldyno.bench.measure import GroupMeasurer, Instruments, Interrupted
from kerneldyno.bench.messages import Channel, Doing, Done, Found, Message, Recorder, Request
from kerneldyno.bench.plan import make
from kerneldyno.bench.records import Ceilings
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device, kernel

PROBLEM = Attention(batch=1, heads=2, q_len=24, head_dim=16)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


class Bench:
    """A group measured in this process, with everything that was said kept."""

    def __init__(
        self, tmp_path, builds, *, clock, protocol="smoke", watch=None, stop=lambda: False, ceilings=None, second_look=None, **declared
    ):
        self.kernels = {}
        for build in builds:
            made = kernel(Attention, **declared)(build)
            self.kernels[made.name] = made
        plan = make(list(self.kernels.values()), [PROBLEM], Device("cpu"), seed=0)
        settings = Settings(protocol=PROTOCOLS[protocol])
        request = Request(
            kind="group", device="cpu", settings=settings, worker=1, recorder="", cases=plan.groups[0].cases, ceilings=ceilings
        )
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        channel = Channel(writing)
        with Recorder(tmp_path / "recorder", create=True) as recorder:
            instruments = Instruments(clock, NoMeter("not measured: no meter"), watch or NoWatch(), lambda _: second_look or ceilings)
            self.measurer = GroupMeasurer(request, self.kernels, channel, recorder, instruments, stop)
            try:
                self.measurer.measure()
                self.interrupted = False
            except Interrupted:
                self.interrupted = True
        channel._file.close()
        with os.fdopen(reading, "rb") as file:
            self.heard = [msgspec.json.decode(line, type=Message) for line in file]
        cases = {case.id: case.kernel.partition("/")[2] for case in request.cases}
        self.measured = {cases[m.measurement.case]: m.measurement for m in self.heard if isinstance(m, Done)}
        self.phases = [(cases[m.case], m.phase) for m in self.heard if isinstance(m, Doing)]


def takes(clock, seconds, name, *, wrong_after=None, raise_after=None):
    """A right kernel that takes so many virtual seconds, and may go wrong after so many calls."""
    calls = 0

    def build(problem, setup):
        def run(inputs):
            nonlocal calls
            calls += 1
            clock.advance(seconds() if callable(seconds) else seconds)
            if raise_after is not None and calls > raise_after:
                raise RuntimeError("worn out")
            out = F.scaled_dot_product_attention(inputs.q, inputs.k, inputs.v)
            return out * 1.1 if wrong_after is not None and calls > wrong_after else out

        return run

    build.__name__ = name
    return build


def test_samples_are_what_the_clock_said(tmp_path):
    clock = FakeClock()
    bench = Bench(tmp_path, [takes(clock, 0.004, "fast"), takes(clock, 0.012, "slow")], clock=clock)
    assert {name: m.status for name, m in bench.measured.items()} == {"fast": "ok", "slow": "ok"}
    for name, seconds in (("fast", 0.004), ("slow", 0.012)):
        (process,) = bench.measured[name].processes
        assert process.samples_s == pytest.approx([seconds] * len(process.samples_s))
        assert len(process.samples_s) >= PROTOCOLS["smoke"].min_samples
        assert process.rounds == sorted(process.rounds)
        assert process.warmup_calls > 0
    assert [phase for name, phase in bench.phases if name == "fast"] == [
        "build",
        "check",
        "identify",
        "memory",
        "warmup",
        "timing",
        "energy",
        "recheck",
    ]


def test_a_steady_kernel_stops_at_the_target_and_a_noisy_one_at_the_cap(tmp_path):
    clock = FakeClock()
    beats = iter([0.01, 0.03] * 10_000)
    bench = Bench(tmp_path, [takes(clock, 0.01, "steady"), takes(clock, lambda: next(beats), "noisy")], clock=clock)
    steady, noisy = bench.measured["steady"], bench.measured["noisy"]
    assert sum(steady.samples_s) < sum(noisy.samples_s)
    assert sum(noisy.samples_s) >= PROTOCOLS["smoke"].cap_s
    assert [w.code for w in steady.warnings] == []
    assert {w.code for w in noisy.warnings} - {"unstable"} == {"wide-interval"}


def test_equal_rounds_hold_samples_of_all_kernels(tmp_path):
    clock = FakeClock()
    bench = Bench(tmp_path, [takes(clock, 0.02, "a"), takes(clock, 0.02, "b")], clock=clock)
    a, b = (set(bench.measured[name].processes[0].rounds) for name in "ab")
    assert a == b


def test_a_kernel_that_breaks_while_it_is_timed_costs_only_itself(tmp_path):
    clock = FakeClock()
    builds = [takes(clock, 0.01, "good"), takes(clock, 0.01, "tired", raise_after=70)]
    bench = Bench(tmp_path, builds, clock=clock)
    assert bench.measured["good"].status == "ok"
    assert bench.measured["tired"].status == "failed"
    assert "worn out" in bench.measured["tired"].reason


def test_timed_outputs_are_looked_at_again(tmp_path):
    clock = FakeClock()
    bench = Bench(tmp_path, [takes(clock, 0.01, "drifts", wrong_after=50)], clock=clock)
    assert bench.measured["drifts"].status == "wrong"
    assert bench.measured["drifts"].reason.startswith("timing: the output of a timed call is off at batch")
    assert bench.measured["drifts"].processes == []


def test_throttled_rounds_are_dropped_for_all(tmp_path):
    clock = FakeClock()
    hot = Reading(reasons=("thermal slowdown by the driver",))
    # read before and after all rounds, and before and after each: the third round is hot
    watch = FakeWatch([Reading()] * 5 + [hot] * 2 + [Reading()])
    bench = Bench(tmp_path, [takes(clock, 0.05, "a"), takes(clock, 0.05, "b")], clock=clock, watch=watch, protocol="default")
    for name in "ab":
        (process,) = bench.measured[name].processes
        assert 2 not in process.rounds
        assert {0, 1, 3} <= set(process.rounds)
        assert bench.measured[name].clocks.dropped_rounds == 1


def test_rounds_in_which_the_containers_quota_ran_out_are_dropped_too(tmp_path):
    clock = FakeClock()
    # cumulative counts, read before and after all rounds, and before and after each: it ran out in the second round
    watch = FakeWatch([Reading(quota_periods=count) for count in (4, 4, 4, 4, 6, 6)])
    bench = Bench(tmp_path, [takes(clock, 0.05, "a")], clock=clock, watch=watch, protocol="default")
    (process,) = bench.measured["a"].processes
    assert 1 not in process.rounds
    assert {0, 2} <= set(process.rounds)
    clocks = bench.measured["a"].clocks
    assert (clocks.dropped_rounds, clocks.throttle_reasons) == (1, ("the container's CPU quota was used up in 2 periods",))


def test_cold_samples_lie_beside_the_warm_ones(tmp_path):
    clock = FakeClock(cold_factor=3.0)
    bench = Bench(tmp_path, [takes(clock, 0.01, "a")], clock=clock)
    (process,) = bench.measured["a"].processes
    assert process.samples_s == pytest.approx([0.01] * len(process.samples_s))
    assert process.cold_samples_s == pytest.approx([0.03] * len(set(process.rounds)))
    assert bench.measured["a"].status == "ok"


def test_a_hot_device_makes_everything_invalid(tmp_path):
    clock = FakeClock()
    readings = [Reading(reasons=("power brake",)) if i % 3 else Reading() for i in range(1000)]
    bench = Bench(tmp_path, [takes(clock, 0.05, "a")], clock=clock, watch=FakeWatch(readings), protocol="default")
    assert bench.measured["a"].status == "invalid"
    assert "throttled" in bench.measured["a"].reason


def test_an_implausible_rate_is_invalid(tmp_path):
    clock = FakeClock()
    slow_machine = Ceilings(matmul_flops_per_s={"float32": 1.0}, copy_bytes_per_s=1.0)
    bench = Bench(tmp_path, [takes(clock, 0.01, "a")], clock=clock, ceilings=slow_machine)
    assert bench.measured["a"].status == "invalid"
    assert "implausible" in bench.measured["a"].reason


def test_a_ceiling_that_was_too_low_is_measured_again_before_anything_is_called_implausible(tmp_path):
    clock = FakeClock()
    busy = Ceilings(matmul_flops_per_s={"float32": 1.0}, copy_bytes_per_s=1e9)
    free = Ceilings(matmul_flops_per_s={"float32": 1e12}, copy_bytes_per_s=1e9)
    bench = Bench(tmp_path, [takes(clock, 0.01, "a")], clock=clock, ceilings=busy, second_look=free)
    assert bench.measured["a"].status == "ok"
    assert [m.ceilings.matmul_flops_per_s for m in bench.heard if isinstance(m, Found)] == [{"float32": 1e12}]


def test_stopping_keeps_who_has_samples_and_leaves_out_who_has_none(tmp_path):
    clock = FakeClock()
    bench = Bench(tmp_path, [takes(clock, 0.05, "a")], clock=clock, protocol="full", stop=lambda: clock.now() > 4.0)
    assert bench.measured["a"].status == "ok"
    assert "few-samples" in {w.code for w in bench.measured["a"].warnings}
    clock = FakeClock()
    bench = Bench(tmp_path, [takes(clock, 0.05, "a")], clock=clock, stop=lambda: True)
    assert bench.interrupted
    assert bench.measured == {}


def test_prepare_happens_outside_the_timed_calls(tmp_path):
    clock = FakeClock()

    def prepare(problem, setup, inputs):
        clock.advance(100.0)
        return inputs

    bench = Bench(tmp_path, [takes(clock, 0.01, "a")], clock=clock, prepare=prepare)
    assert bench.measured["a"].samples_s == pytest.approx([0.01] * len(bench.measured["a"].samples_s))
    assert bench.measured["a"].prepare_s is not None


def test_gradients_at_sizes_where_only_some_rows_are_compared(tmp_path, monkeypatch):
    """The timed calls are given the gradient that the right answer belongs to."""
    from kerneldyno.bench.gate import examine
    from kerneldyno.kernels.attention.sdpa import sdpa

    monkeypatch.setitem(examine.FLOPS, "cpu", 1e5)
    monkeypatch.setattr(f"{__name__}.PROBLEM", Attention(batch=1, heads=2, q_len=200, head_dim=16, direction="backward"))
    clock = FakeClock()

    def gradients(problem, setup):
        run = sdpa.build_run(problem, setup)

        def call(inputs):
            clock.advance(0.01)
            return run(inputs)

        return call

    bench = Bench(tmp_path, [gradients], clock=clock, directions=("forward", "backward"))
    (measurement,) = bench.measured.values()
    assert bench.measurer.gate.truths[0].rows is not None
    assert (measurement.status, measurement.reason) == ("ok", None)


def test_what_was_prepared_for_the_warm_up_is_prepared_again_for_the_first_round(tmp_path):
    clock = FakeClock()

    def quantized(problem, setup):
        def run(prepared):
            clock.advance(0.01)
            return F.scaled_dot_product_attention(prepared.q, prepared.k, prepared.v)

        return run

    bench = Bench(tmp_path, [quantized], clock=clock, prepare=lambda problem, setup, inputs: inputs.map(torch.clone))
    assert bench.measured["quantized"].status == "ok"
