"""What our own kernels need to know of a GPU to cut their work: plain numbers, also of cards that are not there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Card:
    """A GPU, as far as the cut of the work depends on it."""

    capability: tuple[int, int]
    multiprocessors: int
    l2_bytes: int

    @classmethod
    def of(cls, device: torch.device) -> Card:
        """The card behind a CUDA device."""
        import torch

        found = torch.cuda.get_device_properties(device)
        return cls((found.major, found.minor), found.multi_processor_count, found.L2_cache_size)


H100 = Card((9, 0), 132, 50 * 2**20)
"""An H100 or H200 (SXM): what the kernels are cut for where no GPU is at hand."""
