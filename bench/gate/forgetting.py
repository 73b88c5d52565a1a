"""Are results remembered by value? Calls on numbers that were seen before may not be quicker than on new ones."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import torch

from kerneldyno.kernels.registry import Problem

from ..instruments.clock import no_garbage_collection
from .conduct import MANY_BYTES, Call, copy_into, free_bytes, synchronize
from .errors import Misconduct

REMEMBERED = 0.75
"""When the fastest call on numbers seen before takes less than this share of the fastest on new numbers, results are remembered."""
PAIRS, FEW_PAIRS = 6, 3
LOOKS = 5
"""Who is suspected is timed again with other numbers: on a machine that others use, one look may deceive."""
LONG_CALL_S, TOO_LONG_S = 0.01, 0.5
COPIES = 6
"""Sets of inputs that this holds at once, beside the given ones, with room for outputs."""


def forgets(call: Call, problem: Problem, inputs: Any, device: torch.device, call_s: float, seed: int) -> None:
    """Raise Misconduct when calls on numbers that were seen before are much faster: then results are remembered by value.

    New numbers, the same numbers written again, and the same untouched are timed in turn; what happens before each call
    is the same, so that caches and threads are in the same state. Who is suspected is timed again, LOOKS times in all.
    Calls of more than TOO_LONG_S are let off, and inputs of which not enough copies fit into memory.
    """
    if call_s > TOO_LONG_S or COPIES * inputs.nbytes > 0.5 * free_bytes(device):
        return
    pairs, suspicion = PAIRS if call_s < LONG_CALL_S else FEW_PAIRS, None
    # the same memory at every look: in new memory at an old address the numbers of writes would repeat, and so hide who counts them
    room = tuple(inputs.map(torch.clone) for _ in range(3))
    for look in range(LOOKS):
        drawn: Iterable[Any] = (problem.inputs(seed + look * pairs + i, device) for i in range(pairs))
        if pairs * inputs.nbytes < MANY_BYTES:
            drawn = list(drawn)  # drawing between the calls would put threads to sleep before those on new numbers only
        suspicion = _suspicion(call, inputs, drawn, device, room)
        if suspicion is None:
            return
    raise Misconduct(str(suspicion))


def _suspicion(call: Call, inputs: Any, drawn: Iterable[Any], device: torch.device, room: tuple[Any, ...]) -> str | None:
    """A sentence when calls on numbers seen before are quick; None when they are not.

    What a call on new numbers may take longer is what it takes to copy them: at problems that are bound by memory, caches
    alone can make so much of a difference.
    """
    slot, spare, elsewhere = room
    new: list[float] = []
    again: list[float] = []
    untouched: list[float] = []
    copying: list[float] = []
    for fresh in drawn:
        for taken, target in ((new, slot), (again, slot), (untouched, spare)):
            started = time.perf_counter()
            copy_into(elsewhere, fresh)  # new numbers are in the processor's caches then, as those seen before are
            if taken is new:
                copying.append(time.perf_counter() - started)
            copy_into(target, fresh)
            call(inputs)  # threads that have slept meanwhile wake up outside of the timed call
            taken.append(_seconds(call, slot, device))
    for taken, how in ((again, "written once more"), (untouched, "left where they were")):
        share = min(taken) / min(new)  # the machine only lengthens calls, and what is new always costs the whole work
        if share < REMEMBERED and min(new) - min(taken) > min(copying):
            return f"takes {share:.0%} of the time on numbers that it has seen before ({how}): results are remembered by value"
    return None


def _seconds(call: Call, inputs: Any, device: torch.device) -> float:
    synchronize(device)
    with no_garbage_collection():  # as in the timed calls, which a kernel could tell apart by it
        started = time.perf_counter()
        call(inputs)
        synchronize(device)
        return time.perf_counter() - started
