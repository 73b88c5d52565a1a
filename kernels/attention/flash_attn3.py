"""FlashAttention-3, the build for Hopper of the flash-attn repository, where it is installed."""

from __future__ import annotations

from importlib import import_module

from ..registry import Device, Run, Setup, kernel
from ._flash_calls import FEATURES, not_taken, ran_package, through
from .problem import Attention

MULTIPLE = 8


def refuses(problem: Attention, device: Device) -> str | None:
    """Cards, sizes and combinations that it is not made for."""
    if device.capability and device.capability != (9, 0):
        return f"flash-attn 3 is made for compute capability 9.0 (Hopper), not {device.capability[0]}.{device.capability[1]}"
    if problem.head_dim % MULTIPLE:
        return f"flash-attn 3 takes head_dim in multiples of {MULTIPLE}, not {problem.head_dim}"
    sentence = not_taken(problem)
    return f"flash-attn 3 {sentence}" if sentence else None


@kernel(
    Attention,
    devices=("cuda",),
    dtypes=("bfloat16", "float16"),
    accepts=FEATURES,
    directions=("forward", "backward"),
    requires=("flash_attn_interface",),
    refuses=refuses,
    identified=ran_package("flash-attn 3", ("flash_attn_3::",), "FlashAttnFwdSm90"),
)
def flash_attn3(problem: Attention, setup: Setup) -> Run:
    """flash-attn 3: flash_attn_func, and flash_attn_with_kvcache for longer caches, lengths and pages.

    Grouped heads share keys and values; into how many parts a cache is split is left to its own heuristic.
    """
    package = import_module("flash_attn_interface")
    return through(problem, setup, package.flash_attn_func, package.flash_attn_with_kvcache, "page_table")
