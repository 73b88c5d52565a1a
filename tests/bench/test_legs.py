"""One leg with a fake clock: what is thrown away, what is kept, and how often the caches are emptied."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kerneldyno.bench.contender import Contender
from kerneldyno.bench.instruments.clock import FakeClock
from kerneldyno.bench.legs import ENOUGH_COLD, run_leg
from kerneldyno.bench.manifest import PROTOCOLS
from kerneldyno.bench.pool import Pool
from kerneldyno.bench.records import Measurement
from kerneldyno.bench.stopping import StoppingRule, WarmUp
from kerneldyno.kernels.attention.problem import Attention, AttentionInputs
from kerneldyno.kernels.registry import kernel

RNG = np.random.default_rng(0)
PROBLEM = Attention(batch=1, heads=1, q_len=2, head_dim=4)


@pytest.fixture
def pool() -> Pool:
    return Pool([PROBLEM.inputs(0), PROBLEM.inputs(1)], 2)


def contender(clock, call_s, given=None):
    """A contender whose calls take `call_s` virtual seconds and note what they were given."""
    made = kernel(Attention)(lambda problem, setup: None)

    def run(inputs: AttentionInputs) -> torch.Tensor:
        clock.advance(call_s)
        if given is not None:
            given.append(inputs)
        return inputs.q

    protocol = PROTOCOLS["default"]
    found = Contender(
        index=0, case=None, kernel=made, problem=PROBLEM, setup=None, measurement=Measurement(case="c", status="ok"),
        rule=StoppingRule(protocol), warm=WarmUp(protocol),
    )  # fmt: skip
    found.run, found.call_s, found.calls = run, call_s, clock.calls_for(call_s)
    return found


def test_every_slot_is_brought_into_the_cache_before_short_calls_count(pool) -> None:
    clock, given = FakeClock(), []
    one = contender(clock, 0.004, given)
    run_leg(one, pool, clock, 0, RNG)
    assert {id(inputs) for inputs in given[:2]} == {id(slot) for slot in pool.slots}
    assert len(one.samples) == 5
    assert len(given) == 2 + 5 + 1  # the last is cold
    assert [sample.seconds for sample in one.samples] == pytest.approx([0.004] * 5)


def test_one_long_call_is_thrown_away_as_is_a_whole_sample_of_short_ones(pool) -> None:
    for call_s, thrown_away in ((0.2, 1), (0.0001, 10)):
        clock, given = FakeClock(), []
        one = contender(clock, call_s, given)
        run_leg(one, pool, clock, 0, RNG)
        assert len(given) == thrown_away + len(one.samples) * one.calls + len(one.cold)


def test_cold_samples_are_kept_apart_and_come_last(pool) -> None:
    clock = FakeClock(sweep_s=0.001, cold_factor=1.5)
    one = contender(clock, 0.01)
    for number in range(4):
        run_leg(one, pool, clock, number, RNG)
    assert one.cold == [(number, pytest.approx(0.015)) for number in range(4)]
    process = one.process(worker=1)
    assert process.cold_samples_s == pytest.approx([0.015] * 4)
    assert process.samples_s == pytest.approx([0.01] * len(process.samples_s))
    assert process.warm_samples_s is None
    assert one.rule.busy_s == pytest.approx(0.01 * len(one.samples))  # cold calls do not count to the latency


def test_emptying_caches_costs_a_tenth_of_the_legs_at_most(pool) -> None:
    clock = FakeClock(sweep_s=0.002)
    one = contender(clock, 0.001)
    for number in range(60):
        run_leg(one, pool, clock, number, RNG)
    assert one.sweeps_s <= 0.1 * one.legs_s + clock.sweep_s
    assert ENOUGH_COLD <= len(one.cold) < 60


def test_from_enough_cold_samples_on_the_cold_calls_are_as_cheap(pool) -> None:
    clock = FakeClock(sweep_s=1e-6)
    one = contender(clock, 0.5)
    for number in range(30):
        run_leg(one, pool, clock, number, RNG)
    assert len(one.cold) == ENOUGH_COLD


def test_a_gpu_is_sampled_cold_and_warm_besides(pool) -> None:
    clock = FakeClock(cache="cold", sweep_s=0.001, cold_factor=1.25)
    one = contender(clock, 0.01)
    run_leg(one, pool, clock, 3, RNG)
    assert [(sample.seconds, sample.warm_seconds) for sample in one.samples] == [(pytest.approx(0.0125), pytest.approx(0.01))] * 5
    assert one.cold == []
    process = one.process(worker=1)
    assert process.cold_samples_s is None
    assert process.warm_samples_s == pytest.approx([0.01] * 5)


def test_warm_calls_on_a_gpu_come_back_to_slots_that_were_just_used() -> None:
    pool = Pool([PROBLEM.inputs(0), PROBLEM.inputs(1)], 40)
    clock, given = FakeClock(cache="cold"), []
    one = contender(clock, 4e-6, given)
    one.calls = 20
    run_leg(one, pool, clock, 0, RNG)
    thrown_away, first = given[:20], given[20 : 20 + 20 + 2 + 20]
    assert len({id(inputs) for inputs in thrown_away}) == 20
    cold, touched, warm = first[:20], first[20:22], first[22:]
    assert len({id(inputs) for inputs in cold}) == 20  # none was used since the cache was emptied
    assert [id(inputs) for inputs in warm] == [id(inputs) for inputs in touched] * 10


def test_a_forgotten_round_leaves_nothing_behind_but_the_time_it_took(pool) -> None:
    clock = FakeClock()
    one = contender(clock, 0.01)
    run_leg(one, pool, clock, 0, RNG)
    kept, busy_s = list(one.samples), one.rule.busy_s
    clock._noise = iter([9.0, 11.0, 13.0, 15.0, 17.0])
    run_leg(one, pool, clock, 1, RNG)
    one.forget_round(1)
    assert one.samples == kept
    assert [number for number, _ in one.cold] == [0]
    assert one.rule.reached < 1e-9  # the wild ones are out of the interval too
    assert one.rule.busy_s > busy_s
