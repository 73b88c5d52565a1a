"""How an attention problem is asked of the flash-attn packages: which of their functions, with which window, and what they refuse.

Both packages take [batch, sequence, heads, head_dim] with any strides whose last is 1, align causal masks and windows to the
ends (flash-attn since 2.1), share key-value heads among query heads, and yield 0 for a query that sees no key.
Sources: github.com/Dao-AILab/flash-attention, flash_attn/flash_attn_interface.py and hopper/flash_attn_interface.py, with what
is checked and clipped in csrc/flash_attn/flash_api.cpp and hopper/flash_api.cpp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..contract import NotAsNamed

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..registry import Run, Setup, Trace
    from .problem import Attention, AttentionInputs

FEATURES = ("causal", "padding", "window", "softcap", "ragged", "paged")
LARGEST_HEAD = 256
UNLIMITED = (-1, -1)
OF_TORCH = "pytorch_flash"
"""The C++ namespace of the copy of FlashAttention-2 that torch carries: not the package."""


def window_size(problem: Attention) -> tuple[int, int]:
    """(left, right): a query at position p sees the keys from p - left to p + right; -1 stands for no limit.

    Causal masks are asked for beside it, so right is 0 only where a window is.
    """
    if not problem.window:
        return UNLIMITED
    return problem.window - 1, 0 if problem.causal else problem.window - 1


def from_cache(problem: Attention) -> bool:
    """Whether the function for key-value caches is called: it takes lengths and block tables, splits long caches, and has no backward."""
    if problem.direction == "backward":
        return False
    return bool(problem.features & {"padding", "ragged", "paged"}) or problem.q_len < problem.kv_len


def not_taken(problem: Attention) -> str | None:
    """What neither package takes, in a sentence."""
    if problem.head_dim > LARGEST_HEAD:
        return f"takes head_dim up to {LARGEST_HEAD}, not {problem.head_dim}"
    if problem.padding and problem.positional:
        return "takes padding without causal or window only: with lengths it counts positions from the end of each row"
    if problem.direction == "backward" and (problem.padding or problem.ragged):
        return "has no backward direction for lengths: its function for caches is for inference"
    return None


def arguments(problem: Attention) -> dict[str, Any]:
    """The keyword arguments that follow from the problem and are called alike in all of these functions."""
    return {
        "softmax_scale": problem.scale,
        "causal": problem.triangular,
        "window_size": window_size(problem),
        "softcap": problem.softcap,
    }


def through(problem: Attention, setup: Setup, plain: Callable[..., Any], cached: Callable[..., Any], table: str) -> Run:
    """A run that calls `cached` where `from_cache` says so, else `plain`; `table` is what `cached` calls a block table."""
    given = arguments(problem)
    if not from_cache(problem):
        return lambda inputs: _heads_first(plain(*_tokens_first(inputs), **given))
    # the last page of a row may reach beyond kv_len, and what lies there must not be seen
    full = torch.full((problem.batch,), problem.kv_len, dtype=torch.int32, device=setup.device) if problem.page_size else None

    def run(inputs: AttentionInputs) -> torch.Tensor:
        lengths = full if inputs.lengths is None else inputs.lengths
        pages = {} if inputs.block_table is None else {table: inputs.block_table}
        return _heads_first(cached(*_tokens_first(inputs), cache_seqlens=lengths, **pages, **given))

    return run


def _tokens_first(inputs: AttentionInputs) -> list[torch.Tensor]:
    """q, k, v as views [batch or pages, sequence, heads, head_dim]; copied only where the numbers of a token lie apart."""
    views = (tensor.transpose(1, 2) for tensor in (inputs.q, inputs.k, inputs.v))
    return [view if view.stride(-1) == 1 else view.contiguous() for view in views]


def _heads_first(output: Any) -> torch.Tensor:
    """[batch, heads, q_len, head_dim], a view; some versions give the log-sum-exp beside the output."""
    found: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return found.transpose(1, 2)


def ran_package(package: str, operators: tuple[str, ...], device_kernel: str) -> Callable[[Any, Setup, Trace], str]:
    """The package ran: a torch operator whose name begins so, or a kernel of the device with `device_kernel` in its name.

    Not every function is an operator of torch: flash-attn 2 calls its kernel for caches past the dispatcher.
    """

    def judge(problem: Any, setup: Setup, trace: Trace) -> str:  # noqa: ARG001
        if trace.product_flops:
            raise NotAsNamed(f"torch multiplied matrices beside {package}")
        if ran := [name for name in trace.operators if name.startswith(operators)]:
            return f"{package} ({ran[0]})"
        if not trace.device_watched:
            return "not seen: the profiler saw no kernel of the device (CUPTI is missing, or its use is not permitted)"
        if not any(device_kernel in name and OF_TORCH not in name for name in trace.operators):
            raise NotAsNamed(f"{package} did not run: none of its kernels is among the {sum(trace.operators.values())} operators that did")
        return f"{package} ({device_kernel})"

    return judge
