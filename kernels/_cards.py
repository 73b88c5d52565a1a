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

    @property
    def shared_bytes(self) -> int:
        """Shared memory that one program may have."""
        return SHARED.get(self.capability, 99) << 10

    @classmethod
    def of(cls, device: torch.device) -> Card:
        """The card behind a CUDA device."""
        import torch

        found = torch.cuda.get_device_properties(device)
        return cls((found.major, found.minor), found.multi_processor_count, found.L2_cache_size)


SHARED = {(8, 0): 163, (8, 7): 163, (9, 0): 227, (10, 0): 227, (10, 3): 227}
"""KB for one program by compute capability (CUDA C++ Programming Guide, technical specifications); 99 on the other cards."""

H100 = Card((9, 0), 132, 50 * 2**20)
"""An H100 or H200 (SXM): what the kernels are cut for where no GPU is at hand."""

CARDS = {
    "sm_80": Card((8, 0), 108, 40 * 2**20),  # A100
    "sm_86": Card((8, 6), 82, 6 * 2**20),  # GeForce RTX 3090
    "sm_89": Card((8, 9), 128, 72 * 2**20),  # GeForce RTX 4090
    "sm_90": H100,
    "sm_100": Card((10, 0), 148, 126 * 2**20),  # B200
    "sm_120": Card((12, 0), 170, 96 * 2**20),  # GeForce RTX 5090
}
"""A usual card of each architecture, for what is to be said of one that is not there."""
