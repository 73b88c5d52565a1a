"""The textbook formula through torch.compile."""

from __future__ import annotations

import os
import shutil

import torch

from ..registry import Device, Run, Setup, differentiated, kernel
from ._masks import sight
from ._textbook import textbook
from .problem import Attention, AttentionInputs


def no_compiler(problem: Attention, device: Device) -> str | None:  # noqa: ARG001
    """torch.compile writes C++ for a CPU, and Triton for a GPU."""
    if device.kind == "cpu" and not any(map(shutil.which, (os.environ.get("CXX") or "g++", "c++", "clang++"))):
        return "torch.compile needs a C++ compiler on a CPU, and none was found: install g++ or name one in CXX"
    return None


@kernel(Attention, accepts=("causal", "padding", "bias", "mask"), directions=("forward", "backward"), refuses=no_compiler)
def compiled(problem: Attention, setup: Setup) -> Run:
    """torch.compile of the textbook formula, for exactly this shape and without graph breaks.

    Inductor may recognize the formula and put SDPA in its place. Compiling belongs to the build, so that a first call
    on the calibration inputs happens there.
    """
    visible = sight(problem, setup.device)

    def formula(inputs: AttentionInputs) -> torch.Tensor:
        return textbook(inputs.q, inputs.k, inputs.v, scale=problem.scale, bias=inputs.bias, visible=visible(inputs))

    fast = torch.compile(formula, fullgraph=True, dynamic=False)

    def run(inputs: AttentionInputs) -> torch.Tensor:
        with torch.set_grad_enabled(problem.direction == "backward"):  # the compiled code is for one of the two
            return fast(inputs)

    (differentiated(run) if problem.direction == "backward" else run)(setup.calibration)
    return run
