"""Our own attention kernel in Triton: scores never leave the chip."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .._identity import triton_kernels
from ..registry import ITEM_BYTES, Device, Run, Setup, kernel
from .problem import Attention, AttentionInputs

if TYPE_CHECKING:
    from ._fused_triton import Tile

HEAD_DIMS = range(16, 257)


def refuses(problem: Attention, device: Device) -> str | None:
    """Head sizes and cards that it is not written for."""
    if problem.head_dim not in HEAD_DIMS:
        return f"takes head_dim from {HEAD_DIMS.start} to {HEAD_DIMS.stop - 1}, not {problem.head_dim}"
    if device.capability is not None and device.capability < (8, 0):
        return f"is written for compute capability 8.0 and newer, not {device.capability[0]}.{device.capability[1]}"
    return None


@kernel(
    Attention,
    devices=("cuda",),
    accepts=("causal", "padding"),
    requires=("triton",),
    refuses=refuses,
    identified=triton_kernels("attention_kernel", alone=True),
)
def fused(problem: Attention, setup: Setup) -> Run:
    """Triton: online softmax over tiles of keys; blocks that nobody sees are skipped, grouped heads share keys and values.

    Float32 products are exact (no TF32). It compiles on its first call, which belongs to the build.
    """
    from ._fused_triton import attend, tile

    capability = torch.cuda.get_device_capability(setup.device)
    cut: Tile = tile(problem.q_len, problem.head_dim, ITEM_BYTES[problem.dtype], capability)

    def run(inputs: AttentionInputs) -> torch.Tensor:
        with torch.cuda.device_of(inputs.q):  # type: ignore[no-untyped-call] # Triton launches on the current device
            return attend(inputs.q, inputs.k, inputs.v, inputs.lengths, scale=problem.scale, causal=problem.triangular, cut=cut)

    run(setup.calibration)
    return run
