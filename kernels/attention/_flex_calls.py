"""FlexAttention as the kernels here call it: what it takes, and one compiled region for the map of blocks and the attention."""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING, Any

import torch

from .._compiling import compiled_once, no_compiler
from ..registry import Device, Run, Setup, differentiated
from ._flex_blocks import Blocks
from ._flex_layout import BLOCK, DECODED, LEAST, Layout
from ._flex_mods import logical_pages, mask_mod, score_mod

if TYPE_CHECKING:
    from .problem import Attention, AttentionInputs

SPLIT_KEYS = 256
"""Keys of one part, where a CPU splits them."""
TILE = 64
"""Keys of a tile of the decoding kernel, unless it is tuned."""
SMALL_PAGES = (2, 13)
"""torch's first version that is known to decode with blocks of fewer keys than that; 2.10 finds no tile for them."""


def refuses(problem: Attention, device: Device) -> str | None:
    """What FlexAttention does not take: small heads and odd pages on a GPU; on a CPU backward, and CPUs it writes no code for."""
    if device.kind != "cpu":
        if problem.head_dim < LEAST:
            return f"FlexAttention takes head_dim from {LEAST} on a GPU, not {problem.head_dim}"
        if problem.page_size % LEAST:
            return f"FlexAttention takes pages of a multiple of {LEAST} tokens on a GPU, not {problem.page_size}"
        return None
    if problem.direction == "backward":
        return "FlexAttention has no backward direction on a CPU"
    if sys.platform == "darwin" or platform.machine().lower() not in ("x86_64", "amd64"):
        return f"FlexAttention takes x86 CPUs with AVX2 under Linux and Windows, not {platform.machine()} under {platform.system()}"
    return no_compiler(problem, device)


def through_flex(problem: Attention, setup: Setup, *, tuned: bool = False) -> Run:
    """inputs -> output [batch, heads, q_len, head_dim]; compiled here, and `tuned` as `compiled_once` says.

    Where the map of blocks follows from the shape alone it is made once, else in every call, in the same compiled region.
    """
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    backward = problem.direction == "backward"
    layout = Layout(problem, threads=torch.get_num_threads() if setup.device.type == "cpu" else 0)
    blocks, logical_of = Blocks.of(layout, setup.device), logical_pages(layout, setup.device)
    moving = setup.calibration.lengths is not None or layout.pooled
    fixed = None if moving else blocks.lists(setup.calibration)
    options = kernel_options(layout)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, inputs: AttentionInputs, logical: torch.Tensor | None) -> torch.Tensor:
        some, some_numbers, full, full_numbers = blocks.lists(inputs) if fixed is None else fixed
        block_mask = BlockMask.from_kv_blocks(
            some,
            some_numbers,
            full,
            full_numbers,
            BLOCK_SIZE=(layout.q_block, layout.kv_block),
            mask_mod=mask_mod(layout, inputs, logical),
            seq_lengths=(layout.rows, layout.keys),
            compute_q_blocks=backward,
        )
        scores = score_mod(layout, inputs, logical)
        output: torch.Tensor = flex_attention(
            q, k, v, score_mod=scores, block_mask=block_mask, scale=problem.scale, enable_gqa=layout.shared, kernel_options=options
        )
        return output

    fast = compiled_once(attend, gradients=backward, tuned=tuned)

    def run(inputs: AttentionInputs) -> torch.Tensor:
        # views are taken out here: on a CPU (2.13) FlexAttention chooses its kernel by the shapes of what they are views of
        q, k, v = layout.queries(inputs.q), layout.cached(inputs.k), layout.cached(inputs.v)
        return fast(q, k, v, inputs, logical_of(inputs)).reshape(inputs.q.shape)

    (differentiated(run) if backward else run)(setup.calibration)
    return run


def kernel_options(layout: Layout) -> Any:
    """What FlexAttention is told about its kernels beside the map of blocks.

    By itself it decodes on a GPU wherever there are fewer than 128 query rows, also where its tile does not hold those of a
    group, and on a CPU wherever there is one row.
    """
    if layout.cpu:
        return {"PARTITION_SIZE": SPLIT_KEYS if layout.split else 1}  # no multiple of a block: keys are not split
    small = {"BLOCK_N": min(layout.kv_block, TILE)} if layout.kv_block < BLOCK else {}
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if layout.short and (layout.kv_block >= TILE or version >= SMALL_PAGES):
        # the option is for the backward pass, too, which has no such kernel: there torch chooses, and chooses the same
        return small if layout.problem.direction == "backward" else {"BACKEND": "TRITON_DECODE", **small}
    return {"FORCE_USE_FLEX_ATTENTION": True, **small} if layout.rows < DECODED else small
