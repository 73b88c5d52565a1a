"""The textbook formula of attention, whole matrices at a time, and the small things that masks need."""

from __future__ import annotations

import torch

ALL = slice(None)


def textbook(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float,
    softcap: float = 0.0,
    bias: torch.Tensor | None = None,
    visible: torch.Tensor | None = None,
) -> torch.Tensor:
    """softmax(capped q kᵀ · scale + bias) v in the tensors' own dtype, a whole matrix of scores at once.

    Rows that see no key come out as 0, with gradient 0: the hidden scores are finite, and their weights are cleared.
    The query heads that share a key-value head stand below one another as rows of one matrix.
    """
    batch, heads, rows, _ = q.shape
    folded = (batch, k.shape[1], heads // k.shape[1] * rows, -1)
    scores = (q.reshape(folded) @ k.mT).view(batch, heads, rows, -1) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias
    if visible is None:
        weights = torch.softmax(scores, dim=-1)
    else:
        hidden = ~visible
        weights = torch.softmax(scores.masked_fill(hidden, torch.finfo(scores.dtype).min), dim=-1).masked_fill(hidden, 0)
    return (weights.view(folded) @ v).view(batch, heads, rows, -1)


def together(*masks: torch.Tensor | None) -> torch.Tensor | None:
    """What all of the masks that are there let through; None when there is none."""
    found = None
    for mask in masks:
        if mask is not None:
            found = mask if found is None else found & mask
    return found


def part(tensor: torch.Tensor, batch: slice, heads: slice, rows: slice | torch.Tensor) -> torch.Tensor:
    """The given part of a tensor [batch, heads, q_len, kv_len] whose dimensions of size 1 stand for all."""
    places = (where if size > 1 else ALL for where, size in zip((batch, heads, rows), tensor.shape, strict=False))
    return tensor[tuple(places)]
