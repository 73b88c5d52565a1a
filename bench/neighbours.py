"""Are the neighbours quiet? Each kernel's latency interleaved with each other one, against its latency alone.

Interleaving is only fair when what ran before leaves nothing behind: threads that go on spinning, or an allocator with
another history, falsify the neighbour by 2 to 4 times. `python -m kerneldyno.bench.neighbours` measures it on this machine,
in one process, blocks alone and interleaved in turn, so that a machine that drifts moves both.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Annotated

import typer

from kerneldyno.kernels import registry
from kerneldyno.kernels.registry import Device, Kernel, Problem, Run

from . import environment, plan
from .instruments import processor

if TYPE_CHECKING:
    from .instruments.clock import Clock
    from .pool import Pool

LIMIT = 0.03
BLOCK_S = 0.4
"""Time given to each kernel in a block."""
THROWN_AWAY = 2
"""First rounds of a block, which still feel what ran before it."""
SAMPLES_PER_LEG = 2
FEWEST_SAMPLES = 5


@dataclass(frozen=True)
class Influence:
    """How much slower `kernel` looks beside `neighbour` than alone: 1.0 is not at all."""

    kernel: str
    neighbour: str
    ratio: float
    """Median over repetitions of the median interleaved divided by the median alone."""
    moved: float
    """Largest of the medians alone divided by the smallest: how much the machine itself moved meanwhile."""


def main(
    operator: Annotated[str, typer.Option(help="attention, feedforward or layer.")] = "attention",
    kernels: Annotated[str, typer.Option(help="Only kernels that match one of these globs. (default: one of each family)")] = "",
    batch: Annotated[int, typer.Option(help="Batch size.")] = 1,
    seq_len: Annotated[int, typer.Option(help="Sequence length.")] = 512,
    repeats: Annotated[int, typer.Option(help="How often each pair is measured, alone and interleaved in turn.")] = 6,
) -> None:
    """Print the influence of every kernel on every other; exit with 5 when one is beyond 3 %."""
    environment.restart_as_worker("kerneldyno.bench.neighbours")
    chosen, problem = _contestants(operator, tuple(filter(None, kernels.split(","))), batch, seq_len)
    found = influences(chosen, problem, repeats)
    for one in sorted(found, key=lambda influence: -abs(influence.ratio - 1)):
        mark = "" if abs(one.ratio - 1) <= LIMIT else "  <-- beyond 3 %"
        print(f"{one.kernel:<24} beside {one.neighbour:<24} {one.ratio:.3f}  (alone it moved by {one.moved - 1:.1%}){mark}")
    beyond = sum(abs(one.ratio - 1) > LIMIT for one in found)
    print(f"{problem.label}: {len(found)} ordered pairs, {beyond} beyond {LIMIT:.0%}")
    raise typer.Exit(5 if beyond else 0)


def influences(kernels: Sequence[Kernel], problem: Problem, repeats: int) -> list[Influence]:
    """The influence of each kernel on each other one at one problem, on the CPU with all its cores."""
    import torch

    from .instruments.clock import CpuClock
    from .pool import Pool

    torch.set_num_threads(processor.cores())
    torch.set_grad_enabled(False)
    setup = registry.Setup(torch.device("cpu"), problem.weights(3), problem.inputs(2))
    runs = {kernel.name: kernel.build(problem, setup) for kernel in kernels}
    pool, clock = Pool([problem.inputs(0), problem.inputs(1)], 2), CpuClock()
    return [_influence((kernel, neighbour), runs, pool, clock, repeats) for kernel, neighbour in permutations(runs, 2)]


def _contestants(operator: str, globs: Sequence[str], batch: int, seq_len: int) -> tuple[list[Kernel], Problem]:
    """One kernel of each family (or those asked for) that takes the seed's problem at this size on the CPU."""
    kernels = registry.load()
    types = {kernel.operator: kernel.problem for kernel in kernels.values()}
    selected = plan.select(kernels, globs, [operator])
    (problem,) = plan.problems(plan.shapes([], [operator], {"batch": [batch], "seq_len": [seq_len]}), types, Device("cpu"))
    able = [kernel for kernel in selected if kernel.why_not(problem, Device("cpu")) is None]
    return (able if globs else list({kernel.family: kernel for kernel in reversed(able)}.values())), problem


def _influence(pair: tuple[str, str], runs: Mapping[str, Run], pool: Pool, clock: Clock, repeats: int) -> Influence:
    alone, beside = [], []
    for _ in range(repeats):
        alone.append(_block(pair[:1], runs, pool, clock))
        beside.append(_block(pair, runs, pool, clock))
    ratios = [after / before for before, after in zip(alone, beside, strict=True)]
    return Influence(*pair, statistics.median(ratios), max(alone) / min(alone))


def _block(names: Sequence[str], runs: Mapping[str, Run], pool: Pool, clock: Clock) -> float:
    """The median of the first kernel's samples, in legs like those of `measure`."""
    samples: list[float] = []
    calls = {name: clock.calls_for(clock.time(runs[name], pool.slots[:1]).seconds) for name in names}
    until, rounds = clock.now() + BLOCK_S * len(names), 0
    while clock.now() < until or len(samples) < FEWEST_SAMPLES:
        for name in names:
            for i in pool.take(calls[name]):
                runs[name](pool.slots[i])
            for _ in range(SAMPLES_PER_LEG):
                seconds = clock.time(runs[name], [pool.slots[i] for i in pool.take(calls[name])]).seconds
                if name == names[0] and rounds >= THROWN_AWAY:
                    samples.append(seconds)
        rounds += 1
    return statistics.median(samples)


if __name__ == "__main__":
    typer.run(main)
