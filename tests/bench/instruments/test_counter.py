"""Edges of a counter: when it moved, how often, and that what cannot be is an error and never a number."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kerneldyno.bench.instruments.clock import FakeClock
from kerneldyno.bench.instruments.counter import Counter, CounterError
from kerneldyno.bench.instruments.energy import FakeMeter


def test_an_edge_tells_when_it_was_seen_and_how_late_at_most() -> None:
    clock = FakeClock()
    counter = Counter(FakeMeter(clock, idle_w=100.0, period_s=1.0), clock)
    clock.advance(0.9)
    assert counter.look() is None
    clock.advance(0.3)
    edge = counter.look()
    assert (edge.joules, edge.seen_s, edge.late_s) == (1100.0, 1.2, pytest.approx(0.3))
    assert counter.look() is None
    assert counter.updates == 1


def test_rare_looks_count_the_updates_between_them() -> None:
    clock = FakeClock()
    counter = Counter(FakeMeter(clock, period_s=0.1), clock, period_s=0.1)
    clock.advance(1.0001)
    edge = counter.look()
    assert counter.updates == 10
    assert edge.late_s == pytest.approx(0.1)  # the last of them is not older than a period
    clock.advance(0.02)
    counter.look()
    assert counter.updates == 10


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (lambda now, joules: None if now > 1 else joules, "could not be read"),
        (lambda now, joules: math.nan if now > 1 else joules, "could not be read"),
        (lambda now, joules: joules - 900 if now > 1 else joules, "went backwards, from 1050.000 to 250.000 J"),
        (lambda now, joules: 0.0 if now > 1 else joules, "went backwards"),
    ],
)
def test_what_cannot_be_is_an_error(shown, reason) -> None:
    clock = FakeClock()
    counter = Counter(FakeMeter(clock, shown=shown), clock)
    clock.advance(1.0)
    assert counter.look() is not None
    clock.advance(2.0)
    with pytest.raises(CounterError, match=reason):
        counter.look()


def test_a_counter_that_cannot_be_read_at_first_is_an_error() -> None:
    clock = FakeClock()
    with pytest.raises(CounterError, match=r"not measured: the energy counter \(fake total energy\) could not be read"):
        Counter(FakeMeter(clock, shown=lambda *_: None), clock)


@given(
    period=st.floats(0.001, 1.0),
    phase=st.floats(0, 1.0),
    waits=st.lists(st.floats(1e-4, 3.0), min_size=2, max_size=40),
    known=st.booleans(),
)
def test_the_counter_moved_within_the_time_that_an_edge_leaves_open(period, phase, waits, known) -> None:
    """At constant power joules are time: the reading says when the last update really was."""
    clock = FakeClock()
    meter = FakeMeter(clock, idle_w=100.0, period_s=period, phase_s=phase, step_j=1e-9)
    counter = Counter(meter, clock, period if known else math.inf)
    for wait in waits:
        clock.advance(wait)
        if edge := counter.look():
            updated_s = (edge.joules - 1000.0) / 100.0
            assert edge.seen_s - edge.late_s - 1e-6 <= updated_s <= edge.seen_s + 1e-6


@given(readings=st.lists(st.integers(0, 50), min_size=2, max_size=20))
def test_edges_never_skip_a_step_backwards(readings) -> None:
    assume(any(b < a for a, b in pairwise(readings)))
    clock = FakeClock()
    left = iter(readings)
    counter = Counter(FakeMeter(clock, shown=lambda *_: float(next(left))), clock)
    with pytest.raises(CounterError, match="went backwards"):
        [counter.look() for _ in readings[1:]]
