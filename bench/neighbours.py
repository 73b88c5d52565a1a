"""Are the neighbours quiet? Each kernel's latency interleaved with each other one, against its latency alone.

Interleaving is only fair when what ran before leaves nothing behind: threads that go on spinning or an allocator with
another history falsify the neighbour by 2 to 4 times. `python -m kerneldyno.bench.neighbours` measures it on this machine,
in one process, blocks alone and interleaved in turn.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from . import environment

LIMIT = 0.03
REPEATS = 6
BLOCK_S = 0.4


@dataclass(frozen=True)
class Influence:
    """How much slower `kernel` looks beside `neighbour` than alone: 1.0 is not at all."""

    kernel: str
    neighbour: str
    ratio: float
    """Median over repetitions of the median interleaved divided by the median alone."""
    alone_spread: float
    """Largest divided by smallest of the medians alone: how much the machine itself moved meanwhile."""


def main(
    operator: Annotated[str, typer.Option(help="attention, feedforward or layer.")] = "attention",
    batch: Annotated[int, typer.Option(help="Batch size.")] = 1,
    seq_len: Annotated[int, typer.Option(help="Sequence length.")] = 512,
    repeats: Annotated[int, typer.Option(help="How often each pair is measured, alone and interleaved in turn.")] = REPEATS,
) -> None:
    """Print the influence of every family on every other; exit 5 when one is beyond 3 %."""
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        _again_as_a_worker()
    found = influences(operator, batch, seq_len, repeats)
    for one in sorted(found, key=lambda i: -abs(i.ratio - 1)):
        mark = "" if abs(one.ratio - 1) <= LIMIT else "  <-- beyond 3 %"
        print(f"{one.kernel:<24} beside {one.neighbour:<24} {one.ratio:.3f}  (alone moved by {one.alone_spread - 1:.1%}){mark}")
    beyond = sum(abs(one.ratio - 1) > LIMIT for one in found)
    print(f"{len(found)} ordered pairs, {beyond} beyond {LIMIT:.0%}")
    raise typer.Exit(5 if beyond else 0)


def influences(operator: str, batch: int, seq_len: int, repeats: int) -> list[Influence]:
    """Every ordered pair of families of an operator, one kernel of each family, on the CPU."""
    import torch

    from kerneldyno.kernels import registry
    from kerneldyno.kernels.registry import Device

    from .contender import Pool
    from .instruments.clock import CpuClock
    from .plan import problems, shapes

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_grad_enabled(False)
    kernels = registry.load()
    types = {kernel.operator: kernel.problem for kernel in kernels.values()}
    axes = {"batch": [batch], "seq_len": [seq_len]}
    (problem,) = problems(shapes([], [operator], axes), types, Device("cpu"))
    presets_of_family = {
        k.family: k for k in reversed(kernels.values()) if k.operator == operator and not k.why_not(problem, Device("cpu"))
    }
    setup = registry.Setup(torch.device("cpu"), problem.weights(3), problem.inputs(2))
    runs = {kernel.name: kernel.build(problem, setup) for kernel in presets_of_family.values()}
    pool, clock = Pool([problem.inputs(0), problem.inputs(1)], 2), CpuClock()
    return [_influence(a, b, runs, pool, clock, repeats) for a in runs for b in runs if a != b]


def _influence(kernel, neighbour, runs, pool, clock, repeats) -> Influence:  # type: ignore[no-untyped-def]
    """Alone, interleaved, alone, interleaved …, so that a drifting machine moves both."""
    alone, beside = [], []
    for _ in range(repeats):
        alone.append(_median(clock, pool, runs, [kernel], kernel))
        beside.append(_median(clock, pool, runs, [kernel, neighbour], kernel))
    ratios = [b / a for a, b in zip(alone, beside, strict=True)]
    return Influence(kernel, neighbour, statistics.median(ratios), max(alone) / min(alone))


def _median(clock, pool, runs, names: Sequence[str], of: str) -> float:  # type: ignore[no-untyped-def]
    """The median of one kernel's samples in rounds of legs as `measure` takes them; the first rounds are thrown away."""
    samples: list[float] = []
    calls = {name: clock.calls_for(clock.time(runs[name], [pool.slots[0]]).seconds) for name in names}
    until = clock.now() + BLOCK_S * len(names)
    rounds = 0
    while clock.now() < until or len(samples) < 5:
        for name in names:
            runs[name](pool.slots[0])
            for _ in range(2):
                chosen = [pool.slots[i] for i in pool.take(calls[name])]
                seconds = clock.time(runs[name], chosen).seconds
                if name == of and rounds >= 2:
                    samples.append(seconds)
        rounds += 1
    return statistics.median(samples)


def _again_as_a_worker() -> None:
    """Start over with the settings that workers have: allocators read them only at the start."""
    caches = Path(tempfile.mkdtemp(prefix="kerneldyno-"))
    settings = environment.worker_environment(len(os.sched_getaffinity(0)), caches)
    os.execve(  # noqa: S606
        sys.executable, [sys.executable, "-P", "-m", "kerneldyno.bench.neighbours", *sys.argv[1:]], {**os.environ, **settings}
    )


if __name__ == "__main__":
    typer.run(main)
