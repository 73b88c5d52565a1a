"""PyTorch's scaled_dot_product_attention: its own choice of backend, and each backend by force."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

from .._identity import ran_backend
from ..registry import ITEM_BYTES, Device, Run, Setup, kernel
from ._masks import blind, sdpa_arguments
from .problem import Attention, AttentionInputs

ALL_FEATURES = ("causal", "padding", "bias", "mask")
BOTH = ("forward", "backward")
BACKENDS = ("flash", "mem_efficient", "cudnn", "math", "overrideable")
"""What SDPA chooses from, as its switches are called."""


def needs_mask(problem: Attention) -> bool:
    """Whether SDPA must be given an explicit mask: its own causal mode is for equal lengths."""
    return bool(problem.features - {"causal"}) or (problem.triangular and problem.cross)


def flash_refuses(problem: Attention, device: Device) -> str | None:
    """What PyTorch's flash backend does not take; on a CPU it takes everything."""
    if device.kind == "cpu":
        return None
    if problem.dtype == "float32":
        return "the flash backend takes bfloat16 and float16 on cuda, not float32"
    if problem.head_dim > 256:
        return f"the flash backend takes head_dim up to 256, not {problem.head_dim}"
    if needs_mask(problem):
        return "the flash backend takes no mask on cuda (padding, bias, or causal with q_len other than kv_len)"
    if device.capability and device.capability < (8, 0):
        return "the flash backend needs a GPU of compute capability 8.0 or newer"
    return None


def efficient_refuses(problem: Attention, device: Device) -> str | None:  # noqa: ARG001
    """What PyTorch's memory-efficient backend does not take."""
    multiple = 16 // ITEM_BYTES[problem.dtype]
    if problem.grouped:
        return "the memory-efficient backend takes no grouped-query heads"
    if problem.head_dim % multiple:
        return f"the memory-efficient backend takes head_dim in multiples of {multiple} for {problem.dtype}, not {problem.head_dim}"
    return None


def cudnn_refuses(problem: Attention, device: Device) -> str | None:
    """What PyTorch's cuDNN backend does not take, whatever the versions: some take larger heads on some cards."""
    if problem.head_dim > 128 or problem.head_dim % 8:
        return f"the cuDNN backend takes head_dim in multiples of 8 up to 128, not {problem.head_dim}"
    if problem.kv_len == 1:
        return "the cuDNN backend does not take a single key"
    if device.capability and device.capability < (8, 0):
        return "the cuDNN backend needs a GPU of compute capability 8.0 or newer"
    return None


@kernel(Attention, accepts=ALL_FEATURES, directions=BOTH, identified=ran_backend())
def sdpa(problem: Attention, setup: Setup) -> Run:
    """PyTorch's scaled_dot_product_attention, which chooses among its backends by itself."""
    return _through_sdpa(problem, setup)


@kernel(Attention, accepts=ALL_FEATURES, directions=BOTH, refuses=flash_refuses, identified=ran_backend("flash"))
def sdpa_flash(problem: Attention, setup: Setup) -> Run:
    """scaled_dot_product_attention, made to use its FlashAttention-2 backend (on a CPU: its tiled one)."""
    return _through_sdpa(problem, setup, "flash")


@kernel(
    Attention,
    devices=("cuda",),
    accepts=ALL_FEATURES,
    directions=BOTH,
    refuses=efficient_refuses,
    identified=ran_backend("efficient"),
)
def sdpa_efficient(problem: Attention, setup: Setup) -> Run:
    """scaled_dot_product_attention, made to use its memory-efficient (CUTLASS) backend."""
    return _through_sdpa(problem, setup, "mem_efficient")


@kernel(
    Attention,
    devices=("cuda",),
    dtypes=("bfloat16", "float16"),
    accepts=ALL_FEATURES,
    directions=BOTH,
    refuses=cudnn_refuses,
    identified=ran_backend("cudnn"),
)
def sdpa_cudnn(problem: Attention, setup: Setup) -> Run:
    """scaled_dot_product_attention, made to use its cuDNN backend."""
    return _through_sdpa(problem, setup, "cudnn")


@kernel(Attention, accepts=ALL_FEATURES, directions=BOTH, identified=ran_backend("math"))
def sdpa_math(problem: Attention, setup: Setup) -> Run:
    """scaled_dot_product_attention, made to use its unfused backend."""
    return _through_sdpa(problem, setup, "math")


def _through_sdpa(problem: Attention, setup: Setup, backend: str | None = None) -> Run:
    arguments = sdpa_arguments(problem, setup.device)
    # the CPU's backends return 0 for a query that sees no key; not all of CUDA's do
    clear = blind(problem) and setup.device.type == "cuda"

    def choose(inputs: AttentionInputs) -> torch.Tensor:
        given = arguments(inputs)
        output = F.scaled_dot_product_attention(inputs.q, inputs.k, inputs.v, **given)
        return _without_blind_rows(output, given["attn_mask"]) if clear else output

    if backend is None:
        return choose
    return _forced(choose if backend == "math" else lambda inputs: choose(_with_rows(inputs)), backend)


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
