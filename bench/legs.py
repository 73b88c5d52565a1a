"""One leg: one kernel's share of a round, with the samples that stand for its latency and those in the other state of the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .contender import Contender, Sample
from .instruments.clock import Clock
from .pool import Answered, Pool

SHORT_S = 0.02
"""Below this a call is cheap enough to be made once on every slot before the samples that count."""
WARM_SLOTS = 2
"""Warm calls on CUDA take turns on so few slots that their cache holds them."""
SWEEP_SHARE = 0.1
"""Emptying the processor's caches takes no more than this share of a kernel's time in the rounds …"""
ENOUGH_COLD = 10
"""… and from so many cold samples on, neither do the cold calls themselves."""


def run_leg(contender: Contender, pool: Pool, clock: Clock, round_number: int, rng: np.random.Generator) -> None:
    """Some calls are thrown away, since the neighbours left their marks on caches and threads; then those that count.

    At the end, when looking no longer disturbs what is timed, the answers of one of the calls that do not count, which one
    is random, and of the last that does are looked at: a kernel cannot know when it has to be right. Raises WrongOutput
    when it is not.

    Where the latency is that of warm calls (CPU), the leg ends with a call after the caches were emptied, as often as that
    is cheap: what it leaves behind meets the calls that the next leg throws away.
    """
    started = clock.now()
    answered = _throw_away(contender, pool, clock, rng)
    for _ in range(contender.samples_per_leg):
        _sample(contender, pool, clock, round_number)
    if clock.cache == "warm":
        contender.legs_s += clock.now() - started
        if cold_is_due(contender):
            _cold_sample(contender, pool, clock, round_number)
    contender.glance(answered, rng)
    if contender.last is not None:
        contender.glance(contender.last, rng)


def cold_is_due(contender: Contender) -> bool:
    """Whether the cold samples so far were cheap enough for another one."""
    allowed_s = SWEEP_SHARE * contender.legs_s
    return contender.sweeps_s <= allowed_s and (len(contender.cold) < ENOUGH_COLD or contender.sweeps_s + contender.cold_s <= allowed_s)


def _throw_away(contender: Contender, pool: Pool, clock: Clock, rng: np.random.Generator) -> Answered:
    """Calls before those that count; what a random one of them answered."""
    run: Any = contender.run
    chosen = pool.take(_thrown_away(contender, pool, clock))
    inputs = contender.slots(pool, chosen)
    looked_at = int(rng.integers(len(inputs)))
    timing = clock.time(run, inputs[: looked_at + 1])
    for item in inputs[looked_at + 1 :]:
        run(item)
    return pool.answered(chosen[looked_at], timing.output)


def _thrown_away(contender: Contender, pool: Pool, clock: Clock) -> int:
    """A sample's worth of calls; where samples are warm and calls short, each slot is brought into the cache."""
    slots = len(pool.slots) if clock.cache == "warm" and contender.call_s < SHORT_S else 1
    return max(contender.calls, slots)


def _sample(contender: Contender, pool: Pool, clock: Clock, round_number: int) -> None:
    """Time one sample in the state of the cache that stands for the latency; on CUDA a warm one besides."""
    run: Any = contender.run
    chosen = pool.take(contender.calls)
    inputs = contender.slots(pool, chosen)
    cold = clock.cache == "cold"
    timing = clock.time(run, inputs, cold=cold)
    warm = _warm_seconds(run, inputs[:WARM_SLOTS], contender.calls, clock) if cold else None
    contender.add(Sample(round_number, timing.seconds, timing.host_seconds, warm, timing.held))
    contender.last = pool.answered(chosen[-1], timing.output)


def _warm_seconds(run: Any, inputs: Sequence[Any], calls: int, clock: Clock) -> float:
    """Seconds of a call on inputs that were used a moment ago: the many slots of a cold sample may be too large to stay."""
    for item in inputs:
        run(item)
    return clock.time(run, [inputs[i % len(inputs)] for i in range(calls)]).seconds


def _cold_sample(contender: Contender, pool: Pool, clock: Clock, round_number: int) -> None:
    """Time one call after the caches were emptied, and note what both cost."""
    run: Any = contender.run
    inputs = contender.slots(pool, pool.take(1))
    started = clock.now()
    seconds = clock.time(run, inputs, cold=True).seconds
    contender.cold.append((round_number, seconds))
    contender.cold_s += seconds
    contender.sweeps_s += max(clock.now() - started - seconds, 0.0)
