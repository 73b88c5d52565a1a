"""What is timed in the cross-check: groups of shipped kernels, and a busy-wait whose time is known."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from kerneldyno.kernels import registry
from kerneldyno.kernels.attention.problem import Attention, AttentionInputs
from kerneldyno.kernels.registry import Device, Kernel, Problem, Run, Setup, kernel

from .. import plan
from ..pool import Pool

BUSY_S = 500e-6
BUSY = "attention/busy_wait"
QUICK = ("eager", "sdpa", "onnxrt", "int8", "fused")
"""Kernels, of whichever operator, that build within a second or two."""
SHAPES = {
    ("cpu", "small"): [("attention", 1, 256), ("feedforward", 1, 64)],
    ("cpu", "full"): [("attention", 1, 256), ("attention", 1, 512), ("feedforward", 1, 128), ("layer", 1, 128)],
    ("cuda", "small"): [("attention", 8, 1024), ("feedforward", 8, 1024)],
    ("cuda", "full"): [("attention", 8, 1024), ("attention", 8, 2048), ("feedforward", 8, 1024), ("layer", 8, 1024)],
}
"""Operator, batch and sequence length: large enough that every call takes 100 us and more."""


@dataclass(frozen=True)
class Group:
    """The kernels of one problem, built, with the input slots that all tools give them in turn."""

    problem: Problem
    setup: Setup
    kernels: Mapping[str, Kernel]
    runs: Mapping[str, Run]
    pool: Pool


@dataclass(frozen=True)
class Subject:
    """One kernel at one problem, as a callable without arguments for tools that know nothing of slots."""

    case: str
    group: Group
    kernel: str
    call: Callable[[], object]
    true_s: float | None = None
    """The time that a call really takes, where it is known."""


def busy_wait(problem: Problem, setup: Setup) -> Run:  # noqa: ARG001 - the signature of a build
    """Spin for BUSY_S."""

    def run(inputs: AttentionInputs) -> torch.Tensor:
        until = time.perf_counter_ns() + int(BUSY_S * 1e9)
        while time.perf_counter_ns() < until:
            pass
        return inputs.q

    return run


def groups(device: Device, size: str, slots: int = 2) -> list[Group]:
    """Problems of this size, each with every kernel that can take it and builds quickly."""
    shipped = registry.load()
    types = {one.operator: one.problem for one in shipped.values()}
    found = []
    for operator, batch, seq_len in SHAPES[device.kind, size]:
        shapes = plan.shapes([], [operator], {"batch": [batch], "seq_len": [seq_len]})
        (problem,) = plan.problems(shapes, types, device)
        able = [one for one in shipped.values() if _is_wanted(one, problem, device)]
        found.append(build(problem, able, torch.device(str(device)), slots))
    return found


def with_busy_wait(group: Group) -> Group:
    """The same group with the busy-wait among its kernels, where it is attention on the CPU; another group as it is."""
    if not isinstance(group.problem, Attention) or group.setup.device.type != "cpu":
        return group
    spinning = kernel(Attention)(busy_wait)
    return Group(
        group.problem,
        group.setup,
        {**group.kernels, spinning.name: spinning},
        {**group.runs, spinning.name: spinning.build(group.problem, group.setup)},
        group.pool,
    )


def build(problem: Problem, kernels: list[Kernel], device: torch.device, slots: int) -> Group:
    """Build the kernels for this problem; weights and inputs are those of a run with seed 0."""
    setup = Setup(device, problem.weights(3, device), problem.inputs(2, device))
    runs = {one.name: one.build(problem, setup) for one in kernels}
    pool = Pool([problem.inputs(0, device), problem.inputs(1, device)], slots, problem)
    return Group(problem, setup, {one.name: one for one in kernels}, runs, pool)


def subjects(group: Group) -> list[Subject]:
    """Every kernel of the group as a callable that is given the slots in turn."""
    return [
        Subject(f"{name} {group.problem.label}", group, name, _in_turn(run, group.pool), BUSY_S if name == BUSY else None)
        for name, run in group.runs.items()
    ]


def _in_turn(run: Run, pool: Pool) -> Callable[[], object]:
    turns = itertools.cycle(pool.slots)
    return lambda: run(next(turns))


def _is_wanted(one: Kernel, problem: Problem, device: Device) -> bool:
    """A kernel with work of its own per inputs is left out: the peers know no untimed step."""
    fits = one.problem is type(problem) and one.name.partition("/")[2] in QUICK and one.prepare is None
    return fits and one.why_not(problem, device) is None
