"""Masks for the kernels: what depends on the shape alone is made once, what depends on the inputs in every call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ._textbook import together

if TYPE_CHECKING:
    from collections.abc import Callable

    from .problem import Attention, AttentionInputs


def sight(problem: Attention, device: torch.device) -> Callable[[AttentionInputs], torch.Tensor | None]:
    """inputs -> bool mask broadcastable to [batch, heads, q_len, kv_len], or None; its causal part is made now."""
    causal = problem.causal_mask(device) if problem.triangular else None

    def visible(inputs: AttentionInputs) -> torch.Tensor | None:
        padding = None if inputs.lengths is None else problem.padding_mask(inputs.lengths)
        return together(causal, padding, inputs.mask)

    return visible


def sdpa_arguments(problem: Attention, device: torch.device) -> Callable[[AttentionInputs], dict[str, Any]]:
    """inputs -> the keyword arguments of torch's scaled_dot_product_attention beside q, k, v.

    Its is_causal aligns to the top left, ours to the end: where the two differ, the mask is explicit.
    """
    if problem.features == {"causal"} and problem.triangular and not problem.cross:
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
    return problem.bias == "boolean" or (problem.causal and problem.q_len > problem.kv_len)
