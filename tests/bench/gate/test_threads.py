"""Busy threads are seen, and put down to whose leg they came with."""

from __future__ import annotations

import threading
import time

import pytest

from kerneldyno.bench.gate.threads import UNKNOWN, Threads

pytestmark = pytest.mark.alone  # a thread that gets no processor is not busy


@pytest.fixture
def spinning():
    """Starts threads that are busy until the test is over."""
    over, started = threading.Event(), []

    def spin():
        while not over.is_set():
            sum(range(1000))

    def start():
        thread = threading.Thread(target=spin, daemon=True)
        thread.start()
        started.append(thread)

    yield start
    over.set()
    for thread in started:
        thread.join()


def test_a_busy_thread_is_put_down_to_the_leg_it_came_with(monkeypatch, spinning):
    monkeypatch.setenv("GOMP_SPINCOUNT", "10000")
    threads = Threads()
    idle = threading.Event()
    sleeper = threading.Thread(target=idle.wait)
    sleeper.start()
    threads.note(1)
    spinning()
    threads.note(2)
    seen = [threads.busy() for _ in range(5)]
    idle.set()
    sleeper.join()
    assert any(2 in owners for owners in seen)
    assert not any(1 in owners for owners in seen)


def test_one_that_was_there_before_is_nobody_s(monkeypatch, spinning):
    monkeypatch.setenv("GOMP_SPINCOUNT", "10000")
    spinning()
    time.sleep(0.01)
    threads = Threads()
    threads.note(3)
    seen = [threads.busy() for _ in range(5)]
    assert any(UNKNOWN in owners for owners in seen)
    assert not any(3 in owners for owners in seen)


def test_outside_of_a_worker_nothing_is_said(monkeypatch, spinning):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    threads = Threads()
    spinning()
    threads.note(0)
    assert threads.busy() == {}
