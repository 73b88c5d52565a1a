"""The textbook formula in plain PyTorch, one operation after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._identity import one_by_one
from ..registry import Run, Setup, kernel
from ._masks import sight
from ._textbook import textbook
from .problem import EVERYTHING, Attention, AttentionInputs

if TYPE_CHECKING:
    import torch


@kernel(Attention, accepts=EVERYTHING, directions=("forward", "backward"), identified=one_by_one())
def eager(problem: Attention, setup: Setup) -> Run:
    """Matrix product, softmax, matrix product: all scores are written to memory and read again.

    The causal mask is made once. The pages of a paged cache are copied together first.
    """
    visible = sight(problem, setup.device)

    def run(inputs: AttentionInputs) -> torch.Tensor:
        given = problem.dense(inputs)
        return textbook(given.q, given.k, given.v, scale=problem.scale, softcap=problem.softcap, bias=inputs.bias, visible=visible(inputs))

    return run
