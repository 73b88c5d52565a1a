"""What the kernels around ONNX Runtime's attention operators share: masks beside the operators' own, queries token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .._onnxsession import constant
from ._masks import blind, sight
from ._textbook import together

if TYPE_CHECKING:
    from collections.abc import Callable

    from .problem import Attention, AttentionInputs


def explicit_mask(
    problem: Attention, device: torch.device, *, positions: bool, additive: bool
) -> Callable[[AttentionInputs], torch.Tensor | None]:
    """inputs -> what an operator must be given as a mask: the inputs' own mask or bias and, if `positions`, what follows from positions.

    Lengths are not in it. A mask of positions alone is made now, and ready to be added: 0 and -inf. What depends on the
    inputs is bool while nothing is added in it, unless `additive`. [1 or batch, 1 or heads, q_len, kv_len] and contiguous in
    the last two dimensions at least, which the operators want in full size.
    """
    fixed = problem.position_mask(device) if positions and not problem.ragged else None
    moving = positions and problem.ragged
    full = (problem.q_len, problem.kv_len)
    dtype = getattr(torch, problem.dtype)

    def added(mask: torch.Tensor) -> torch.Tensor:
        return torch.zeros(mask.shape, dtype=dtype, device=device).masked_fill_(~mask, -torch.inf)

    if problem.bias == "none" and not moving:
        ready = None if fixed is None else added(fixed)
        return lambda _: ready

    def mask(inputs: AttentionInputs) -> torch.Tensor:
        position = problem.position_mask(device, inputs.lengths) if moving else fixed
        if inputs.bias is not None:
            found = inputs.bias if position is None else inputs.bias.masked_fill(~position, -torch.inf)
        else:
            seen = together(position, inputs.mask)
            assert seen is not None
            found = added(seen) if additive else seen
        return found.expand(*found.shape[:2], *full)

    return mask


def blind_cleared(problem: Attention, device: torch.device) -> Callable[[AttentionInputs, torch.Tensor], torch.Tensor]:
    """(inputs, output) -> the output with 0 for the queries that see no key; it costs nothing where there are none."""
    if not blind(problem):
        return lambda _, output: output
    visible = sight(problem, device)

    def cleared(inputs: AttentionInputs, output: torch.Tensor) -> torch.Tensor:
        mask = visible(inputs)
        assert mask is not None
        return output.masked_fill(~mask.any(-1, keepdim=True), 0)

    return cleared


def tokens_first(name: str, sequences: int, heads: int, length: int, head_dim: int) -> tuple[list[Any], list[Any], str]:
    """(nodes, constants, name of the result): [sequences, heads, length, head_dim] -> [sequences, length, heads · head_dim].

    ONNX Runtime does this in its own threads and memory. Done by torch before the call, threads of two pools compete.
    """
    from onnx import helper

    flat, shape = f"{name}_flat", f"{name}_shape"
    nodes = [
        helper.make_node("Transpose", [name], [f"{name}_turned"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", [f"{name}_turned", shape], [flat]),
    ]
    return nodes, [constant(shape, torch.tensor([sequences, length, heads * head_dim]))], flat
