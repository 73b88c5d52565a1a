"""A device that is simulated: our prefill kernel in Triton's interpreter, and a clock that knows how long each tile takes.

To be given with --load and --simulated. Some of its tiles go wrong in ways that a real device has, too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from kerneldyno.bench.instruments.clock import FakeClock
from kerneldyno.kernels._cards import H100, Card
from kerneldyno.kernels._tuning import Task
from kerneldyno.kernels.attention import _prefill_tuning, fused
from kerneldyno.kernels.attention._prefill_tiles import Tile
from kerneldyno.kernels.attention.problem import EVERYTHING, Attention
from kerneldyno.kernels.registry import Device, Run, Setup, kernel

DEFAULT = Tile(64, 64, 4, 3)
CRASHES = Tile(64, 32, 4, 4)
WRONG = Tile(64, 32, 4, 3)
FAST = Tile(64, 32, 4, 2)
EDGES = Tile(64, 32, 4, 5)
"""Right at the length that is measured, and wrong at others."""
SLOW = Tile(64, 64, 4, 2)
SPILLS = Tile(128, 128, 4, 2)
TOO_LARGE = Tile(256, 64, 8, 2)

SECONDS = {DEFAULT: 0.05, WRONG: 0.01, FAST: 0.04, EDGES: 0.03, SLOW: 0.08}
"""Per call."""
MOODS = (0.6, 1.25, 1.26)
"""Of causal problems the fast tile takes so many times as long, depending on the process: what one process says means nothing."""
SHORT = 200
"""Tokens that are interpreted: more would take minutes."""
LENGTH = 70
COMPILING_S = 0.35
"""Each build takes so long: what is slow to build is not built anew for each awkward length, unless somebody wants to know."""

clock = FakeClock()


def process() -> int:
    """How many processes of this tuning there were before, by a file in the folder that it runs in."""
    counter = Path("processes.txt")
    before = int(counter.read_text()) if counter.is_file() else 0
    counter.write_text(str(before + 1))
    return before


mood = MOODS[process() % len(MOODS)]


def tuning(problem: Attention, card: Card) -> Iterator[Task]:
    """As fused offers it, with these candidates alone."""
    for task in fused.tuning(problem, card):
        yield replace(task, candidates=(FAST,) if problem.causal else (CRASHES, WRONG, EDGES, FAST, SLOW, SPILLS, TOO_LARGE))


def identified(problem: Attention, setup: Setup, trace: Any) -> str:
    return fused.form(problem, H100)


def refuses(problem: Attention, device: Device) -> str | None:
    return f"interprets up to {SHORT} tokens" if problem.kv_len > SHORT else None


@kernel(Attention, accepts=EVERYTHING, refuses=refuses, tuning=tuning, identified=identified)
def simulated(problem: Attention, setup: Setup) -> Run:
    """Our kernel as an H100 would launch it."""
    time.sleep(COMPILING_S)
    attend = fused.launched(problem, H100)
    cut = DEFAULT if fused.packed(problem) else _prefill_tuning.chosen(problem, H100).value
    factor = mood if problem.causal and cut == FAST else 1.0

    def run(inputs: Any) -> Any:
        if cut == CRASHES:
            os.abort()
        clock.advance(SECONDS.get(cut, 0.05) * factor)
        output = attend(inputs)
        return output * 1.05 if cut == WRONG or (cut == EDGES and problem.q_len != LENGTH) else output

    return run
