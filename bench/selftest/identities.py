"""Kernels that are right and not what their name says: the look at what ran has to find them out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .examining import SHIPPED, Job, Look, examined
from .findings import Control, Finding, Found
from .randomly import SLOW_FAMILIES

if TYPE_CHECKING:
    from kerneldyno.kernels.registry import Kernel, Problem

    from .context import Context

SECTION = "impostors"
SOURCE = f"{__package__}.impostors"
SIZES: dict[str, dict[str, Any]] = {
    "attention": {"batch": 1, "heads": 4, "q_len": 160, "head_dim": 64},
    "feedforward": {"batch": 1, "seq_len": 160, "dim": 64, "hidden_dim": 256},
    "layer": {"batch": 1, "seq_len": 160, "dim": 64, "heads": 4, "hidden_dim": 256},
}


def findings(context: Context) -> Iterator[Found]:
    """Every impostor, and every shipped kernel whose name says something that can be looked at."""
    from kerneldyno.kernels import registry

    from .impostors import impostors

    slow = SLOW_FAMILIES if context.short else ()
    asked = [(SOURCE, kernel) for kernel in impostors() if kernel.family not in slow]
    asked += [(SHIPPED, kernel) for kernel in registry.load().values() if kernel.identified and kernel.family not in slow]
    for job, answer in examined(_jobs(asked, context), parallel=context.parallel, stop=context.stop):
        context.say(answer.kernel)
        name, where = answer.kernel, job.problem.label
        if answer.source == SOURCE:
            caught = None if answer.outcome == "unable" else answer.outcome == "refused"
            said = answer.said or ("" if caught else answer.outcome)
            yield Finding(section=SECTION, plant=name, where=where, caught=caught, said=said)
        elif answer.outcome != "unable":
            yield Control(section=SECTION, what=name, where=where, alarm=answer.outcome != "passed", said=answer.said)


def _jobs(asked: list[tuple[str, Kernel]], context: Context) -> list[Job]:
    at: dict[Problem, list[tuple[str, str]]] = {}
    for source, kernel in asked:
        at.setdefault(kernel.problem(**SIZES[kernel.operator]), []).append((source, kernel.name))
    look: Look = "nothing" if context.blind else "identity"
    return [
        Job(problem, tuple(kernels[part::2]), context.device, context.seed, look)
        for problem, kernels in at.items()
        for part in range(2)
        if kernels[part::2]
    ]
