"""Choosing what structured pruning keeps."""

from __future__ import annotations

import torch

KEPT_SHARE = 0.5
WIDE = 1024
"""From here on counts are kept a multiple of 128, the width of a tensor-core tile; of 16 below."""


def kept_count(count: int, share: float = KEPT_SHARE) -> int:
    """How many of `count` remain: the share, rounded down to what hardware likes where that leaves anything."""
    wanted = max(1, int(count * share))
    for multiple in (128,) * (count >= WIDE) + (16,):
        if wanted >= multiple:
            return wanted - wanted % multiple
    return wanted


def some_of(count: int, share: float) -> int:
    """How many of a few parts, such as heads, remain: about the share, but at least one, and not all where there are several."""
    return max(1, min(round(count * share), count - 1))


def strongest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Indices of the `count` largest scores, in their old order."""
    return scores.topk(count).indices.sort().values


def row_norms(matrix: torch.Tensor) -> torch.Tensor:
    """Euclidean length of each row, in float32."""
    lengths: torch.Tensor = torch.linalg.vector_norm(matrix.float(), dim=1)
    return lengths
