"""Our own attention kernels in Triton: scores never leave the chip."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .._cards import Card
from .._identity import triton_kernels
from ..registry import ITEM_BYTES, Device, Gradients, Run, Setup, Trace, kernel
from . import _backward_code, _backward_tuning, _decode_code, _decode_tuning, _prefill_code, _prefill_tuning, _tuned_code
from ._on_device import started
from ._pairs import keys_read
from ._precision import precision
from .problem import EVERYTHING, Attention, AttentionInputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from .._code import Configuration
    from .._tuning import Task

HEAD_DIMS = range(16, 257)

FEW_QUERIES = 16
"""Query tokens up to which the heads of a group are packed into one tile and the keys are split among programs."""


def refuses(problem: Attention, device: Device) -> str | None:
    """Head sizes and cards that it is not written for."""
    if problem.head_dim not in HEAD_DIMS:
        return f"takes head_dim from {HEAD_DIMS.start} to {HEAD_DIMS.stop - 1}, not {problem.head_dim}"
    if device.capability is not None and device.capability < (8, 0):
        return f"is written for compute capability 8.0 and newer, not {device.capability[0]}.{device.capability[1]}"
    return None


def packed(problem: Attention) -> bool:
    """Whether the decode kernel takes it, and not the one for many queries."""
    return problem.q_len <= FEW_QUERIES or problem.page_size > 0


def device_kernel(problem: Attention) -> str:
    """The Triton kernel that computes its output."""
    return "split_kernel" if packed(problem) else "prefill_kernel"


def ran(problem: Attention, setup: Setup, trace: Trace) -> str:
    """The judge of its identity; says which tile it was built with and who chose it, and where TF32 was used."""
    names = [device_kernel(problem), *(["keys_kernel"] if problem.direction == "backward" else [])]
    found = triton_kernels(*names, alone=True)(problem, setup, trace)
    return f"{found} {form(problem, Card.of(setup.device), precision=precision())}" if trace.device_watched else found


def form(problem: Attention, card: Card, *, precision: str = "ieee") -> str:
    """How the work is cut on a card: "128×128 w8 s3 ahead, tuned"."""
    if packed(problem):
        told = str(_decode_tuning.chosen(problem, card, precision))
    else:
        chosen = _prefill_tuning.chosen(problem, card, precision)
        told = f"{_prefill_tuning.launched(chosen.value, problem, card)}, {chosen.origin}"
    if problem.direction == "backward":
        back = _backward_tuning.chosen(problem, card, precision)
        told = f"{told}; backward {_backward_tuning.launched(back.value, problem, card)}, {back.origin}"
    return f"{told}, in TF32" if problem.dtype == "float32" and precision == "tf32" else told


def tuning(problem: Attention, card: Card) -> Iterator[Task]:
    """What there is to choose of the kernel that is meant for the problem, or of its backward direction: the output has its own."""
    if problem.direction == "backward":
        found = _backward_tuning.task(problem, card)
    else:
        found = _decode_tuning.task(problem, card) if packed(problem) else _prefill_tuning.task(problem, card)
    if found is not None:
        yield found


def device_code(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form in which its kernels may be launched on a card."""
    yield from _prefill_code.configurations(capability)
    yield from _decode_code.configurations(capability)
    yield from _backward_code.configurations(capability)
    yield from _tuned_code.configurations(capability)


@kernel(
    Attention,
    devices=("cuda",),
    accepts=EVERYTHING,
    directions=("forward", "backward"),
    gradients="kernel",
    requires=("triton",),
    refuses=refuses,
    identified=ran,
    device_code=device_code,
    tuning=tuning,
)
def fused(problem: Attention, setup: Setup) -> Run:
    """Triton: online softmax over tiles of keys; what nobody sees is skipped, grouped heads share keys and values.

    Many queries: tiles of queries, the longest first. Few, or a paged cache: the heads of a group share a tile, and several
    programs share the keys of a row (split-KV), as many as the GPU has room for. Backward: tiles of keys, which hold their
    gradients and add up those of the queries in memory. Float32 products are exact, or TF32 where torch allows that
    (torch.backends.cuda.matmul.fp32_precision). It compiles on its first call, which belongs to the build.
    """
    return started(launched(problem, Card.of(setup.device), precision=precision()), setup.calibration)


def launched(problem: Attention, card: Card, *, precision: str = "ieee") -> Run:
    """inputs -> output, or Gradients, by the kernels meant for the problem, cut for the card; in Triton's interpreter on a CPU."""
    attend = _few(problem, card, precision) if packed(problem) else _many(problem, card, precision)
    return attend if problem.direction == "forward" else _both(problem, card, precision, attend)


def _few(problem: Attention, card: Card, precision: str) -> Callable[..., torch.Tensor]:
    from . import _decode_splits as cutting
    from ._decode_triton import decode

    item_bytes, rows = ITEM_BYTES[problem.dtype], problem.q_len * problem.group
    cut = _decode_tuning.chosen(problem, card, precision).value
    resident = cutting.resident(cut, problem.head_dim, item_bytes, card.capability)
    seen = max(keys_read(problem, length) for length in problem.lengths())
    splits = cutting.splits(problem.batch, problem.kv_heads, -(-rows // cut.rows), seen, cut, card.multiprocessors, resident)
    options = {**_meaning(problem), "kv_len": problem.kv_len, "cut": cut, "splits": splits, "precision": precision}
    return lambda inputs, **more: decode(inputs.q, inputs.k, inputs.v, block_table=inputs.block_table, **_given(inputs), **options, **more)


def _many(problem: Attention, card: Card, precision: str) -> Callable[..., torch.Tensor]:
    from ._prefill_launch import attend
    from ._prefill_tiles import heads_together

    item_bytes = ITEM_BYTES[problem.dtype]
    cut = _prefill_tuning.chosen(problem, card, precision).value
    size = {"head_dim": problem.head_dim, "item_bytes": item_bytes, "l2_bytes": card.l2_bytes}
    together = heads_together(problem.group, problem.kv_len, **size, causal=problem.triangular, eighths=cut.l2_eighths)
    tma = _prefill_code.takes_tma(card.capability, item_bytes)
    options = {**_meaning(problem), "cut": cut, "together": together, "tma": tma, "precision": precision}
    options["programs"] = cut.persistent * card.multiprocessors
    return lambda inputs, **more: attend(inputs.q, inputs.k, inputs.v, **_given(inputs), **options, **more)


def _both(problem: Attention, card: Card, precision: str, attend: Callable[..., torch.Tensor]) -> Run:
    from ._backward_launch import gradients
    from ._backward_tiles import shares
    from ._prefill_tiles import heads_together

    item_bytes, group = ITEM_BYTES[problem.dtype], problem.group
    cut = _backward_tuning.chosen(problem, card, precision).value
    programs = problem.batch * problem.kv_heads * -(-problem.kv_len // cut.bs)
    shared = shares(group, programs, card.multiprocessors)
    order: dict[str, Any] = {"head_dim": problem.head_dim, "item_bytes": item_bytes, "l2_bytes": card.l2_bytes}
    order |= {"causal": problem.triangular, "eighths": cut.l2_eighths}
    together = (heads_together(1, problem.q_len * group // shared, **order), heads_together(group, problem.kv_len, **order))
    options = {**_meaning(problem), "cut": cut, "shares": shared, "together": together, "precision": precision}
    options["tma"] = _prefill_code.takes_tma(card.capability, item_bytes)
    options["summed_by_tma"] = _backward_code.adds_by_tma(card.capability, problem.head_dim, item_bytes)

    def forward_backward(inputs: AttentionInputs) -> Gradients:
        assert inputs.grad is not None  # a problem of direction backward has one
        lse = torch.empty(inputs.q.shape[:3], dtype=torch.float32, device=inputs.q.device)
        output = attend(inputs, lse=lse)
        found = gradients(inputs.q, inputs.k, inputs.v, output, lse, inputs.grad, **_given(inputs), **options)
        return Gradients(output, dict(zip("qkv", found, strict=True)))

    return forward_backward


def _meaning(problem: Attention) -> dict[str, Any]:
    """What the problem says of every call."""
    names = ("scale", "ragged", "window", "softcap")
    return {"causal": problem.triangular, **{name: getattr(problem, name) for name in names}}


def _given(inputs: AttentionInputs) -> dict[str, Any]:
    """What a call brings along beside q, k and v."""
    return {"lengths": inputs.lengths, "bias": inputs.bias, "mask": inputs.mask}
