"""Masks for the kernels: what depends on the shape alone is made once, what depends on the inputs in every call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ._textbook import together

if TYPE_CHECKING:
    from collections.abc import Callable

    from .problem import Attention, AttentionInputs


def sight(problem: Attention, device: torch.device) -> Callable[[AttentionInputs], torch.Tensor | None]:
    """inputs -> bool mask broadcastable to [batch, heads, q_len, kv_len], or None.

    What follows from positions is made now, unless they depend on the lengths of a ragged cache.
    """
    fixed = problem.position_mask(device) if problem.positional and not problem.ragged else None
    moving = problem.positional and problem.ragged

    def visible(inputs: AttentionInputs) -> torch.Tensor | None:
        position = problem.position_mask(device, inputs.lengths) if moving else fixed
        padding = None if inputs.lengths is None else problem.padding_mask(inputs.lengths)
        return together(position, padding, inputs.mask)

    return visible


def sdpa_arguments(problem: Attention, device: torch.device) -> Callable[[AttentionInputs], dict[str, Any]]:
    """inputs -> the keyword arguments of torch's scaled_dot_product_attention beside q, k, v.

    Its is_causal aligns to the top left, ours to the end: where the two differ, the mask is explicit.
    """
    if problem.triangular and not problem.cross and problem.features <= {"causal", "paged"}:
        square = {"attn_mask": None, "is_causal": True, "enable_gqa": problem.grouped}
        return lambda _: square
    visible = sight(problem, device)

    def arguments(inputs: AttentionInputs) -> dict[str, Any]:
        mask = visible(inputs)
        if inputs.bias is not None:
            mask = inputs.bias if mask is None else inputs.bias.masked_fill(~mask, -torch.inf)
        return {"attn_mask": mask, "enable_gqa": problem.grouped}

    return arguments


def blind(problem: Attention) -> bool:
    """Whether some query may see no key at all."""
    before = problem.q_len > problem.kv_len and (problem.causal or problem.window > 0)
    return problem.bias == "boolean" or before or (problem.padding and problem.window > 0)
