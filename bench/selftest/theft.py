"""Kernels that do not compute the right answer but find it: in the harness's memory, records or local variables."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

import torch

from .cheats import PROBLEM, attend
from .plants import Plant, planted

if TYPE_CHECKING:
    from kerneldyno.kernels.attention.problem import Attention, AttentionInputs
    from kerneldyno.kernels.registry import Run, Setup


def stolen(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001
    """Looks for the right answer among everything that is alive in the process."""

    def run(inputs: AttentionInputs) -> torch.Tensor:
        for item in gc.get_objects():
            if type(item) is torch.Tensor and item.dtype == torch.float64 and item.shape == inputs.q.shape:
                return item.to(inputs.q.dtype)
        return attend(inputs)

    return run


def looked_up(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001
    """Looks for the right answer in the harness's records of what is right, by the first numbers of the inputs."""
    known: dict[float, torch.Tensor] = {}

    def run(inputs: AttentionInputs) -> torch.Tensor:
        if not known:
            for item in gc.get_objects():
                if type(item).__name__ == "Truth" and item._expected and item.inputs is not None and item.inputs.q.shape == inputs.q.shape:  # noqa: SLF001
                    known[float(item.inputs.q.flatten()[0])] = item._expected["output"].to(inputs.q.dtype)  # noqa: SLF001
        answer = known.get(float(inputs.q.flatten()[0]))
        return answer.clone() if answer is not None and answer.shape == inputs.q.shape else attend(inputs)

    return run


def of_the_caller(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001
    """Looks for the right answer in the local variables of whoever calls."""

    def run(inputs: AttentionInputs) -> torch.Tensor:
        frame = sys._getframe().f_back  # noqa: SLF001 - what a cheat would do
        while frame is not None:
            for value in list(frame.f_locals.values()):
                expected = getattr(getattr(value, "truth", value), "_expected", None)
                if expected and expected["output"].shape == inputs.q.shape:
                    return expected["output"].to(inputs.q.dtype)  # type: ignore[no-any-return]
            frame = frame.f_back
        return attend(inputs)

    return run


def plants() -> list[Plant]:
    """All of them."""
    made = {
        "takes the right answer from the process's memory": stolen,
        "looks the right answer up": looked_up,
        "takes the right answer from its caller": of_the_caller,
    }
    return [planted(title, build, [PROBLEM]) for title, build in made.items()]
