"""Memory full of rubbish before a call: what a kernel reads without having written it must not look like zeros."""

from __future__ import annotations

import torch

NAN, LARGE = float("nan"), 1e4
"""Two kinds of rubbish: the one spoils every sum, the other passes through a maximum and a comparison, too."""
COPIES = 6
MOST_BYTES = 2**26
"""Of one block: larger ones cost time, and the allocator gives their pages back anyway."""


def poison(device: torch.device, nbytes: int, value: float) -> None:
    """Leave free blocks behind that hold `value`: of the size of the output, half and twice of it, and small ones.

    The allocator hands out what was freed last, so the next allocations of such sizes come from them.
    """
    sizes = {min(max(size, 256), MOST_BYTES) for size in (nbytes, nbytes // 2, 2 * nbytes, 4 * nbytes, 4096)}
    blocks = [torch.full((size // 4,), value, device=device) for size in sorted(sizes) for _ in range(COPIES)]
    del blocks
