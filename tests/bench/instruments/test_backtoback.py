"""Calls that are counted when they are done, on a device with a queue of its own too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.bench.instruments.backtoback import AHEAD, DeviceRun, HostRun
from kerneldyno.bench.instruments.clock import FakeClock


class Queue:
    """A device that works off what is queued, in order; a stream of its own may work beside it."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.ends: list[float] = []
        """When each call is done."""
        self.stray_until_s = 0.0

    def run(self, seconds: float, launch_s: float = 0.0) -> None:
        self.clock.advance(launch_s)
        self.ends.append(max(self.clock.now(), self.ends[-1] if self.ends else 0.0) + seconds)

    def mark(self) -> Passed:
        return Passed(self)

    def done(self) -> int:
        return sum(end <= self.clock.now() + 1e-12 for end in self.ends)


class Passed:
    """A mark behind what was queued when it was recorded."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def record(self) -> None:
        self.at_s = self.queue.ends[-1]

    def query(self) -> bool:
        return self.at_s <= self.queue.clock.now()

    def synchronize(self) -> None:
        self.queue.clock.advance(max(self.at_s - self.queue.clock.now(), 0.0))


class QueueClock(FakeClock):
    """Synchronizing waits for everything, also for work that no mark knows of."""

    queue: Queue

    def synchronize(self) -> None:
        super().synchronize()
        self.advance(max([self.queue.stray_until_s, *self.queue.ends[-1:]]) - self.now())


def device(call_s: float, launch_s: float = 0.0, portion: int = 10) -> tuple[DeviceRun, Queue, QueueClock]:
    clock = QueueClock()
    clock.queue = queue = Queue(clock)
    return DeviceRun(lambda _: queue.run(call_s, launch_s), lambda count: [None] * count, portion, queue.mark, clock), queue, clock


def test_on_the_host_a_call_is_done_when_it_returns() -> None:
    calls: list[int] = []
    work = HostRun(calls.append, range, 4)
    assert [work.step(), work.step(), work.unsure, work.drain()] == [4, 8, 0, 0.0]
    assert calls == [0, 1, 2, 3] * 2


@given(call_s=st.floats(1e-5, 0.1), launch_s=st.floats(0, 0.1), portion=st.integers(1, 20), pauses=st.lists(st.floats(0, 0.5), max_size=20))
def test_calls_are_counted_when_they_are_done_but_for_those_it_is_unsure_of(call_s, launch_s, portion, pauses) -> None:
    work, queue, clock = device(call_s, launch_s, portion)
    for pause in [0.0] * 4 + pauses:  # somebody reads a counter meanwhile
        counted = work.step()
        assert counted <= queue.done() <= counted + work.unsure
        assert len(queue.ends) - queue.done() <= (AHEAD + 1) * portion
        clock.advance(pause)


def test_a_busy_device_never_waits_and_its_calls_are_known_exactly() -> None:
    work, queue, _ = device(call_s=0.001)
    for _ in range(50):
        work.step()
    assert work.unsure == 0
    assert queue.ends[-1] == pytest.approx(0.001 * len(queue.ends))  # no gap
    assert work.step() == queue.done()


def test_draining_ends_when_all_calls_are_done() -> None:
    work, queue, clock = device(call_s=0.001)
    for _ in range(5):
        work.step()
    assert work.drain() == 0.0
    assert clock.now() == pytest.approx(queue.ends[-1])


def test_work_that_no_mark_knows_of_is_told_when_drained() -> None:
    work, queue, _ = device(call_s=0.001)
    for _ in range(5):
        work.step()
    queue.stray_until_s = queue.ends[-1] + 0.25
    assert work.drain() == pytest.approx(0.25)
