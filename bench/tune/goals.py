"""What there is to tune: kernels × problems → choices to be made, each measured at one problem. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerneldyno.kernels import _code, registry
from kerneldyno.kernels._cards import CARDS, Card
from kerneldyno.kernels._tuned import Key
from kerneldyno.kernels._tuning import Task
from kerneldyno.kernels.registry import Device

from .. import launch, plan
from ..plan import UsageError

if TYPE_CHECKING:
    from kerneldyno.kernels.registry import Kernel, Problem

PRESETS = ("default", "fa-grid", "llama-8b-prefill", "decode")
"""What is tuned when nobody names a shape."""
FEWEST_PROCESSES = 3


Form = _code.Configuration
"""Loaded before kernels are declared, and so not forgotten afterwards: what is sent to compilers has to be of the class known here."""


@dataclass(frozen=True)
class Asked:
    """What `kerneldyno tune` was asked for."""

    run: launch.Options
    """Shapes, kernels, device, files, limits: as of `kerneldyno run`."""
    arch: str = "sm_90"
    """Where there is no device: that of a usual card."""
    simulated: str = ""
    """Name of the file of --load that brings a simulated device; empty: a real one."""
    book: Path | None = None
    """Folder of the files that are written; None: the package's own."""
    folder: Path | None = None
    """Of the tuning itself; None: a new one."""
    resumed: bool = False
    jobs: int | None = None
    """Compile so many candidates at once; None: one on each core."""


@dataclass(frozen=True)
class Goal:
    """One choice to be made."""

    kernel: Kernel
    problem: Problem
    """Where it is measured: the largest of the problems that share the key."""
    task: Task
    shared: int
    """So many problems share it."""

    @property
    def key(self) -> Key:
        return self.task.key


@dataclass(frozen=True)
class Goals:
    """All choices to be made, and where."""

    device: Device
    card: Card
    found: list[Goal] = field(default_factory=list)


def goals(asked: Asked, device: Device, card: Card) -> Goals:
    """The choices that kernels offer at the problems asked for, in order. Raises UsageError where there is none."""
    options = asked.run
    kernels = registry.load(options.load, declarations_only=True)
    offering = [kernel for kernel in plan.select(kernels, options.kernels, options.operators) if kernel.tuning is not None]
    if not offering:
        known = ", ".join(kernel.name for kernel in kernels.values() if kernel.tuning is not None)
        raise UsageError(f"nothing to tune: no chosen kernel offers a choice: choose from {known}")
    chosen = launch.presets_of(options, device)
    problems = launch.problems_of(options, kernels, chosen, device, {kernel.operator for kernel in offering})
    found = _by_key(offering, problems, device, card)
    if not found:
        raise UsageError(f"nothing to tune: none of the {len(problems)} problems leaves {offering[0].name} a choice on {device}")
    return Goals(device, card, found)


def _by_key(kernels: Sequence[Kernel], problems: Sequence[Problem], device: Device, card: Card) -> list[Goal]:
    """One goal for each key: of problems that share it the one with the most work stands for all."""
    found: dict[Any, list[Goal]] = {}
    for kernel in kernels:
        for problem in problems:
            if problem.operator != kernel.operator or kernel.why_not(problem, device) is not None:
                continue
            assert kernel.tuning is not None
            for task in kernel.tuning(problem, card):
                if task.candidates:
                    found.setdefault((kernel.name, task.key), []).append(Goal(kernel, problem, task, 1))
    return [_standing_for(goals) for goals in found.values()]


def _standing_for(sharing: Sequence[Goal]) -> Goal:
    most = max(sharing, key=lambda goal: goal.problem.flops())
    return Goal(most.kernel, most.problem, most.task, len(sharing))


def card_named(arch: str) -> tuple[Device, Card]:
    """A usual card of an architecture, and the device that it would be. Raises UsageError for one that is unknown."""
    name = f"sm_{arch.lower().removeprefix('sm').removeprefix('_').replace('.', '')}"
    if name not in CARDS:
        raise UsageError(f"--arch {arch!r} is unknown: choose from {', '.join(CARDS)}")
    card = CARDS[name]
    return Device("cuda", name=f"a usual card of {name}", capability=card.capability), card


def texts(goal: Goal) -> Mapping[str, Any]:
    """The tiles of a goal by what people call them, the default first."""
    return {str(tile): tile for tile in (goal.task.default, *goal.task.candidates)}
