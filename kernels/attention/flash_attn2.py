"""FlashAttention-2 of the flash-attn package, where it is installed."""

from __future__ import annotations

from importlib import import_module

from ..registry import Device, Run, Setup, kernel
from ._flash_calls import FEATURES, not_taken, ran_package, through
from .problem import Attention

PAGE = 256
"""Pages hold multiples of so many tokens."""


def refuses(problem: Attention, device: Device) -> str | None:
    """Cards, sizes and combinations that the package checks, or clips wrongly."""
    if device.capability and device.capability < (8, 0):
        return "flash-attn 2 needs a GPU of compute capability 8.0 or newer"
    if problem.page_size % PAGE:
        return f"flash-attn 2 takes pages of multiples of {PAGE} tokens, not {problem.page_size}"
    if problem.window and not problem.causal and problem.q_len > problem.kv_len:
        # windows of kv_len and more are taken for none, which is wrong for queries that stand before the first key
        return "flash-attn 2 takes a window without causal for q_len up to kv_len only"
    sentence = not_taken(problem)
    return f"flash-attn 2 {sentence}" if sentence else None


@kernel(
    Attention,
    devices=("cuda",),
    dtypes=("bfloat16", "float16"),
    accepts=FEATURES,
    directions=("forward", "backward"),
    requires=("flash_attn", "flash_attn_2_cuda"),  # flash-attn 4 alone brings a flash_attn, too
    refuses=refuses,
    identified=ran_package("flash-attn 2", ("flash_attn::", "flashattn::"), "flash_fwd"),
)
def flash_attn2(problem: Attention, setup: Setup) -> Run:
    """flash-attn 2: flash_attn_func, and flash_attn_with_kvcache for longer caches, lengths and pages.

    Grouped heads share keys and values. Head sizes that are no multiple of 8 are padded in every call.
    """
    package = import_module("flash_attn")
    return through(problem, setup, package.flash_attn_func, package.flash_attn_with_kvcache, "block_table")
