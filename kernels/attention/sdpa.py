"""PyTorch's scaled_dot_product_attention: its own choice of backend, and each backend by force."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812

from .._identity import SDPA_BACKENDS, ran_backend
from ..registry import ITEM_BYTES, Device, Run, Setup, Trace, kernel
from ._masks import blind, sdpa_arguments
from .problem import Attention, AttentionInputs

if TYPE_CHECKING:
    from collections.abc import Callable

MASKED = ("causal", "padding", "bias", "mask", "window", "ragged")
"""What a mask can say: all of it but a softcap, and pages, which only `sdpa` copies together."""
BOTH = ("forward", "backward")
BACKENDS = ("flash", "mem_efficient", "cudnn", "math", "overrideable")
"""What SDPA chooses from, as its switches are called."""
CUTLASS = "aten::_efficient_attention_forward"
"""The memory-efficient kernel, as SDPA's operator of that backend calls it, and causal masks aligned to the end call it directly."""


def aligned(problem: Attention) -> bool:
    """Causal alone, with more keys than queries: two backends need no mask for it, though SDPA's own causal mode is for equal lengths.

    torch.nn.attention.bias.causal_lower_right asks them. With more queries than keys it warns of NaN.
    """
    return problem.triangular and problem.q_len < problem.kv_len and problem.features == {"causal"}


def needs_mask(problem: Attention) -> bool:
    """Whether the flash backend would have to be given an explicit mask."""
    return bool(problem.features - {"causal"}) or (problem.triangular and problem.cross and not aligned(problem))


def flash_refuses(problem: Attention, device: Device) -> str | None:
    """What PyTorch's flash backend does not take; on a CPU it takes everything."""
    if device.kind == "cpu":
        return None
    if problem.dtype == "float32":
        return "the flash backend takes bfloat16 and float16 on cuda, not float32"
    if problem.head_dim > 256:
        return f"the flash backend takes head_dim up to 256, not {problem.head_dim}"
    if needs_mask(problem):
        return "the flash backend takes no mask on cuda (padding, bias, window, ragged, or causal with more queries than keys)"
    if device.capability and device.capability < (8, 0):
        return "the flash backend needs a GPU of compute capability 8.0 or newer"
    if problem.direction == "backward" and 192 < problem.head_dim <= 224 and _small_memory(device):
        return f"the flash backend has no backward direction for head_dim from 193 to 224 on this GPU, thus not for {problem.head_dim}"
    return None


def _small_memory(device: Device) -> bool:
    """Cards with less shared memory than those of data centres: 8.6 to 8.9, and 12."""
    return device.capability is not None and ((8, 6) <= device.capability <= (8, 9) or device.capability >= (12, 0))


def efficient_refuses(problem: Attention, device: Device) -> str | None:
    """What PyTorch's memory-efficient backend does not take."""
    multiple = 16 // ITEM_BYTES[problem.dtype]
    if problem.head_dim % multiple:
        return f"the memory-efficient backend takes head_dim in multiples of {multiple} for {problem.dtype}, not {problem.head_dim}"
    if problem.dtype == "bfloat16" and device.capability and device.capability < (8, 0):
        return "the memory-efficient backend takes bfloat16 on GPUs of compute capability 8.0 or newer"
    return None


def cudnn_refuses(problem: Attention, device: Device) -> str | None:
    """What PyTorch's cuDNN backend takes in no version of torch and cuDNN.

    Heads of more than 128: on compute capability 9.0 since cuDNN 9.10, on 10.x since 9.22. Where the installed ones do not
    take them, the call raises.
    """
    if device.capability and device.capability < (8, 0):
        return "the cuDNN backend needs a GPU of compute capability 8.0 or newer"
    roomy = device.capability is None or device.capability == (9, 0) or device.capability[0] == 10
    largest = 256 if roomy else 128
    if problem.head_dim > largest or problem.head_dim % 8:
        return f"the cuDNN backend takes head_dim in multiples of 8 up to {largest}, not {problem.head_dim}"
    if problem.kv_len == 1:
        return "the cuDNN backend does not take a single key"
    return None


def ran_efficient(problem: Attention, setup: Setup, trace: Trace) -> str:
    """The memory-efficient kernel ran, through SDPA's operator of that backend or directly, and no other backend."""
    if CUTLASS in trace.operators and not SDPA_BACKENDS.keys() & trace.operators.keys():
        return "SDPA backend efficient"
    return ran_backend("efficient")(problem, setup, trace)


@kernel(Attention, accepts=(*MASKED, "paged"), directions=BOTH, identified=ran_backend())
def sdpa(problem: Attention, setup: Setup) -> Run:
    """PyTorch's scaled_dot_product_attention, which chooses among its backends by itself.

    It knows no pages: those of a paged cache are copied together in every call, as its users must do.
    """
    return _through_sdpa(problem, setup)


@kernel(Attention, accepts=MASKED, directions=BOTH, refuses=flash_refuses, identified=ran_backend("flash"))
def sdpa_flash(problem: Attention, setup: Setup) -> Run:
    """scaled_dot_product_attention, made to use its FlashAttention-2 backend (on a CPU: its tiled one)."""
    return _through_sdpa(problem, setup, "flash")


@kernel(
    Attention,
    devices=("cuda",),
    accepts=MASKED,
    directions=BOTH,
    refuses=efficient_refuses,
    identified=ran_efficient,
)
def sdpa_efficient(problem: Attention, setup: Setup) -> Run:
    """scaled_dot_product_attention, made to use its memory-efficient (CUTLASS) backend.

    It shares no keys and values among heads, so the heads of a group become rows of one head where there is one query, and
    else see them expanded in place, not copied.
    """
    return _through_sdpa(problem, setup, "mem_efficient")


@kernel(
    Attention,
    devices=("cuda",),
    dtypes=("bfloat16", "float16"),
    accepts=MASKED,
    directions=BOTH,
    refuses=cudnn_refuses,
    identified=ran_backend("cudnn"),
)
def sdpa_cudnn(problem: Attention, setup: Setup) -> Run:
    """scaled_dot_product_attention, made to use its cuDNN backend."""
    return _through_sdpa(problem, setup, "cudnn")


@kernel(Attention, accepts=MASKED, directions=BOTH, identified=ran_backend("math"))
def sdpa_math(problem: Attention, setup: Setup) -> Run:
    """scaled_dot_product_attention, made to use its unfused backend."""
    return _through_sdpa(problem, setup, "math")


def _through_sdpa(problem: Attention, setup: Setup, backend: str | None = None) -> Run:
    given = _arguments(problem, setup.device, backend)
    # the CPU's backends return 0 for a query that sees no key; not all of CUDA's do
    clear = blind(problem) and setup.device.type == "cuda"

    def choose(inputs: AttentionInputs) -> torch.Tensor:
        others = given(inputs)
        output = F.scaled_dot_product_attention(inputs.q, inputs.k, inputs.v, **others)
        return _without_blind_rows(output, others["attn_mask"]) if clear else output

    if backend is None:
        return (lambda inputs: choose(problem.dense(inputs))) if problem.page_size else choose
    if backend == "math":
        return _forced(choose, backend)
    if backend == "mem_efficient" and problem.grouped:
        return _forced(lambda inputs: ungrouped(problem, _with_rows(inputs), given(inputs)["attn_mask"], clear=clear), backend)
    return _forced(lambda inputs: choose(_with_rows(inputs)), backend)


def _arguments(problem: Attention, device: torch.device, backend: str | None) -> Callable[[AttentionInputs], dict[str, Any]]:
    """inputs -> keyword arguments of scaled_dot_product_attention, without a mask where the backend can do without."""
    if device.type == "cuda" and backend in ("flash", "mem_efficient") and aligned(problem):
        from torch.nn.attention.bias import causal_lower_right

        ends = {"attn_mask": causal_lower_right(problem.q_len, problem.kv_len), "enable_gqa": problem.grouped}
        return lambda _: ends
    return sdpa_arguments(problem, device)


def ungrouped(problem: Attention, inputs: AttentionInputs, mask: torch.Tensor | None, *, clear: bool = False) -> torch.Tensor:
    """Attention with shared keys and values through a backend that shares none: [batch, heads, q_len, head_dim].

    One query: the heads of a group are rows. More: key-value heads go to the batch, and their keys and values are expanded.
    """
    batch, kv_heads, group = inputs.q.shape[0], problem.kv_heads, problem.group
    q, k, v = inputs.q, inputs.k, inputs.v
    if problem.q_len == 1:
        q = q.reshape(batch, kv_heads, group, -1)
        mask = mask.reshape(mask.shape[0], kv_heads, group, -1) if mask is not None and mask.shape[1] > 1 else mask
    else:
        q = q.reshape(batch * kv_heads, group, problem.q_len, -1)
        k, v = (tensor.reshape(batch * kv_heads, 1, problem.kv_len, -1).expand(-1, group, -1, -1) for tensor in (k, v))
        mask = _ungrouped_mask(problem, batch, mask)
    causal = {"is_causal": True} if mask is None and problem.triangular else {}
    output = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **causal)
    if clear and mask is not None:
        output = _without_blind_rows(output, mask)
    return output.reshape(inputs.q.shape)


def _ungrouped_mask(problem: Attention, batch: int, mask: torch.Tensor | None) -> torch.Tensor | None:
    """A mask [batch or 1, heads or 1, q_len or 1, kv_len] for key-value heads that have gone to the batch; copied only where it must be."""
    if mask is None or problem.features <= {"causal"} or mask.shape[:2] == (1, 1):
        return mask  # also one that stands for a causal mask, and has no numbers
    group = problem.group if mask.shape[1] > 1 else 1
    apart = mask.reshape(mask.shape[0], -1, group, *mask.shape[2:])
    return apart.expand(batch, problem.kv_heads, *apart.shape[2:]).flatten(0, 1)


def _forced(call: Run, backend: str) -> Run:
    """`call` with this one backend allowed: torch raises where it cannot serve, it does not fall back.

    torch.nn.attention.sdpa_kernel does the same in 40 µs, which would be timed; these switches take 2.
    """
    core = torch._C  # noqa: SLF001 - not all of the switches have a public name
    switches = [(getattr(core, f"_set_sdp_use_{name}"), getattr(core, f"_get_{name}_sdp_enabled")) for name in BACKENDS]

    def run(inputs: AttentionInputs) -> torch.Tensor:
        before = [is_on() for _, is_on in switches]
        try:
            for (switch, _), name in zip(switches, BACKENDS, strict=True):
                switch(name == backend)
            output: torch.Tensor = call(inputs)
        finally:
            for (switch, _), was_on in zip(switches, before, strict=True):
                switch(was_on)
        return output

    return run


def _with_rows(inputs: AttentionInputs) -> AttentionInputs:
    """The inputs as the fused backends take them, with the numbers of one token side by side; copied only where they are not."""
    apart = {name: tensor.contiguous() for name in ("q", "k", "v") if (tensor := getattr(inputs, name)).stride(-1) != 1}
    return inputs.replace(**apart) if apart else inputs


def _without_blind_rows(output: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """0 for the queries that see no key, where a backend gives NaN."""
    seeing = mask if mask.dtype == torch.bool else mask > -torch.inf
    return output.masked_fill(~seeing.any(-1, keepdim=True), 0)
