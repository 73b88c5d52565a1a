"""Memory full of rubbish before a call: what a kernel reads without having written it must not look like zeros."""

from __future__ import annotations

import torch

from kerneldyno.kernels.registry import ITEM_BYTES, Problem

NAN, LARGE = float("nan"), 1e4
"""Two kinds of rubbish: the one spoils every sum, the other passes through a maximum and a comparison, too."""
COPIES = 6
MOST_BYTES = {"cpu": 2**26, "cuda": 2**30}
"""Of one block: filling larger ones takes longer than it is worth, and of a GPU's memory others need a share."""


def poison(problem: Problem, device: torch.device, numbers: int, value: float) -> None:
    """Leave free blocks behind that hold `value` in the problem's dtype and in float32.

    Blocks as large as the output (of so many numbers), half, twice and four times that, and small ones: the allocator hands
    out what was freed last, so the next allocations of such sizes come from them.
    """
    most = MOST_BYTES[device.type]
    for dtype, item in ((torch.float32, 4), (getattr(torch, problem.dtype), ITEM_BYTES[problem.dtype])):
        sizes = {min(max(count, 1024), most // item) for count in (numbers, numbers // 2, 2 * numbers, 4 * numbers, 1024)}
        blocks = [torch.full((size,), value, device=device, dtype=dtype) for size in sorted(sizes) for _ in range(COPIES)]
        del blocks
        if dtype == torch.float32 == getattr(torch, problem.dtype):
            return
