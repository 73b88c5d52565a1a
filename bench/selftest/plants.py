"""A planted fault: a kernel that is right but for one mistake, and the problems at which it must be caught."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from kerneldyno.kernels.registry import Kernel, kernel

if TYPE_CHECKING:
    from kerneldyno.kernels.registry import Problem, Run, Setup

P = TypeVar("P", bound="Problem")

SHORT_TOKENS = 1024
"""Problems with longer sequences are left out of a short self-test."""


@dataclass(frozen=True)
class Plant:
    """One fault, as a kernel, and where it is planted."""

    title: str
    """What is wrong, in a few words."""
    kernel: Kernel
    problems: tuple[Problem, ...]
    beyond: tuple[Problem, ...] = ()
    """Problems at which it is smaller than the gate promises to see, and tried all the same."""
    right: bool = False
    """Nothing is wrong: the control of the others, which must pass."""
    only_on: str | None = None
    """The kind of device on which it exists; None: all."""
    late: bool = False
    """It behaves as long as it is only checked: a run in which it is timed decides."""
    for_gain: bool = False
    """It does honest work where it cannot cheat: it is foiled, too, where it is no faster than the honest kernel."""

    def places(self, *, short: bool) -> tuple[Problem, ...]:
        """Where it is tried: everywhere, or at the first short problem only (a control at all short ones)."""
        everywhere = (*self.problems, *self.beyond)
        if not short:
            return everywhere
        brief = tuple(problem for problem in self.problems if problem.shape[1] <= SHORT_TOKENS)
        return brief if self.right else brief[:1]

    def must(self, problem: Problem) -> bool:
        """Whether the gate has to catch it there."""
        return problem in self.problems


def slug(title: str) -> str:
    """A kernel's name made of a title: "output × 1.05" is "output_1_05"."""
    return re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")


def planted(
    title: str,
    build: Callable[[Any, Setup], Run],
    problems: Sequence[Problem],
    *,
    beyond: Sequence[Problem] = (),
    right: bool = False,
    only_on: str | None = None,
    late: bool = False,
    for_gain: bool = False,
    **declared: Any,
) -> Plant:
    """A plant whose kernel takes exactly what its problems ask for; `declared` goes to @kernel."""
    every = (*problems, *beyond)
    declare = {
        "accepts": sorted(frozenset().union(*(problem.features for problem in every))),
        "directions": sorted({problem.direction for problem in every}),
        **declared,
    }
    made = kernel(type(every[0]), name=slug(title), family="selftest", **declare)(build)
    return Plant(title, made, tuple(problems), tuple(beyond), right, only_on, late, for_gain)


def by_name(plants: Sequence[Plant]) -> Mapping[str, Plant]:
    """Plants by the names of their kernels; raises ValueError when two have the same."""
    found = {plant.kernel.name: plant for plant in plants}
    if len(found) != len(plants):
        names = [plant.kernel.name for plant in plants]
        raise ValueError(f"two plants are named alike: {sorted({name for name in names if names.count(name) > 1})}")
    return found


def in_dtypes(problem: P, *dtypes: str) -> tuple[P, ...]:
    """The same problem in several dtypes."""
    return tuple(replace(problem, dtype=dtype) for dtype in dtypes)
