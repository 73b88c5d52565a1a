"""The textbook formula through torch.compile, for the kernels that differ in how hard it tries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._compiling import compiled_once
from ..registry import Run, Setup, differentiated
from ._masks import sight
from ._textbook import textbook

if TYPE_CHECKING:
    import torch

    from .problem import Attention, AttentionInputs


def compiled_textbook(problem: Attention, setup: Setup, *, tuned: bool = False) -> Run:
    """inputs -> output [batch, heads, q_len, head_dim]; compiled here, and `tuned` as `compiled_once` says."""
    visible = sight(problem, setup.device)
    backward = problem.direction == "backward"

    def formula(inputs: AttentionInputs) -> torch.Tensor:
        given = problem.dense(inputs)
        return textbook(given.q, given.k, given.v, scale=problem.scale, softcap=problem.softcap, bias=inputs.bias, visible=visible(inputs))

    run = compiled_once(formula, gradients=backward, tuned=tuned)
    (differentiated(run) if backward else run)(setup.calibration)
    return run
