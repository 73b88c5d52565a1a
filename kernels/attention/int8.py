"""Scores from 8-bit integers: q and k are quantized within the timed call, their products are integer arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .._cards import Card
from .._identity import integer_products, triton_kernels
from ..registry import Device, Run, Setup, Trace, kernel
from . import _int8_code, _int8_tiles
from ._int8_claims import by_row, centred, keys_by_block
from ._int8_graph import attend as attend_on_cpu
from ._int8_graph import blocks, part, query_steps
from ._on_device import started
from ._prefill_code import takes_tma
from ._prefill_tiles import heads_together
from .problem import Attention, AttentionInputs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._code import Configuration

KERNELS = ("int8_sums_kernel", "int8_keys_kernel", "int8_prefill_kernel")


def claim_on_cpu(problem: Attention, setup: Setup, inputs: AttentionInputs) -> torch.Tensor:  # noqa: ARG001
    """Float64 attention on q and the centred k after quantization and back, with a step for each token; v is exact.

    The mean is that of all keys, also of those past a row's length: each has a step of its own, and none is as coarse for it.
    """
    return problem.reference(inputs.replace(q=by_row(inputs.q, query_steps()), k=by_row(centred(inputs.k.float()))))


def claim_on_cuda(problem: Attention, setup: Setup, inputs: AttentionInputs) -> torch.Tensor:  # noqa: ARG001
    """The same with a step for each query and for each block of keys."""
    return problem.reference(inputs.replace(q=by_row(inputs.q), k=keys_by_block(inputs)))


def claim(problem: Attention, setup: Setup, inputs: AttentionInputs) -> torch.Tensor:
    """That of the device."""
    return (claim_on_cuda if setup.device.type == "cuda" else claim_on_cpu)(problem, setup, inputs)


def refuses(problem: Attention, device: Device) -> str | None:
    """On a GPU: what its kernels are not written for."""
    return _int8_tiles.refusal_on_cuda(problem, device) if device.kind == "cuda" else None


def ran(problem: Attention, setup: Setup, trace: Trace) -> str:
    """The judge of its identity."""
    if setup.device.type == "cuda":
        return triton_kernels(*KERNELS, alone=True)(problem, setup, trace)
    count = len(blocks(part(problem)))  # the trace holds the nodes of one call of the graph
    return integer_products(count, beside=count)(problem, setup, trace)


def device_code(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form in which its kernels may be launched on a card."""
    yield from _int8_code.configurations(capability)


@kernel(
    Attention,
    accepts=("causal", "padding", "bias", "mask", "window", "ragged"),
    requires=("cpu:onnx", "cpu:onnxruntime", "cuda:triton"),
    approximate=True,
    own_allocator=("cpu",),
    claim=claim,
    refuses=refuses,
    identified=ran,
    device_code=device_code,
)
def int8(problem: Attention, setup: Setup) -> Run:
    """8-bit q and k, their mean over tokens taken off the keys; integer products, floating-point softmax and weights × v.

    On a CPU one ONNX graph with a scale per token (u8 × s8), the rest in float32: rounding the weights to 8 bit doubled the error
    and saved nothing. On a GPU Triton: a scale per query and per block of 128 keys, weights × v in 16 bit. Quantization is timed.
    """
    if setup.device.type == "cpu":
        return attend_on_cpu(problem, setup)
    return started(launched(problem, Card.of(setup.device)), setup.calibration)


def launched(problem: Attention, card: Card) -> Run:
    """inputs -> output by the Triton kernels, cut for the card; in Triton's interpreter on a CPU."""
    from ._int8_launch import attend

    sequences = problem.batch * problem.heads
    cut = _int8_tiles.tile(problem.q_len, sequences, problem.head_dim, card.capability, card.multiprocessors, window=problem.window > 0)
    # keys take half of the bytes of values
    size = {"head_dim": problem.head_dim, "item_bytes": 2, "l2_bytes": card.l2_bytes * 4 // 3}
    together = heads_together(problem.group, problem.kv_len, **size, causal=problem.triangular)
    meaning = {name: getattr(problem, name) for name in ("scale", "ragged", "window")} | {"causal": problem.triangular}
    tma = takes_tma(card.capability, 2)
    return lambda inputs: attend(inputs.q, inputs.k, inputs.v, lengths=inputs.lengths, cut=cut, together=together, tma=tma, **meaning)
