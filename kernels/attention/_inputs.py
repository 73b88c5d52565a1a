"""What one call of an attention kernel reads. Kernels import it from `problem`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..registry import Tensors

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class AttentionInputs(Tensors):
    """What one call of an attention kernel reads."""

    q: torch.Tensor
    """[batch, heads, q_len, head_dim]"""
    k: torch.Tensor
    """[batch, kv_heads, kv_len, head_dim]; of a paged cache the pool of its pages, [pages, kv_heads, page_size, head_dim]"""
    v: torch.Tensor
    """As k."""
    bias: torch.Tensor | None = None
    """Added to the scaled scores; broadcastable to [batch, heads, q_len, kv_len]."""
    mask: torch.Tensor | None = None
    """bool, true where a query sees a key; broadcastable to [batch, heads, q_len, kv_len]."""
    lengths: torch.Tensor | None = None
    """int32 [batch], at least 1: keys from here on are padding, or not there yet. What is there is finite: 0 times NaN is NaN."""
    block_table: torch.Tensor | None = None
    """int32 [batch, pages of a row]: key j of row b is k[block_table[b, j // page_size], :, j % page_size].

    Entries past the last page of a row are 0, and what a last page holds past the row's length means nothing."""
    grad: torch.Tensor | None = None
    """The gradient of the output, in direction "backward"."""

    differentiable: ClassVar[tuple[str, ...]] = ("q", "k", "v")

    def with_mask(self, mask: torch.Tensor) -> AttentionInputs:
        """A copy in which a key is visible only where `mask` says so too."""
        mask = mask.reshape((1,) * (4 - mask.dim()) + mask.shape)
        return self.replace(mask=mask if self.mask is None else self.mask & mask)
