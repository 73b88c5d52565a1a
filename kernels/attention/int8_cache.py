"""A decode step over keys and values that were quantized to 8 bit ahead of time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .._cards import Card
from .._identity import integer_products, triton_kernels
from ..registry import Device, Run, Setup, Trace, kernel
from . import _decode_splits, _int8_cache_code
from ._int8_cache import Cache, for_cpu, for_cuda
from ._int8_cache_graph import LONGEST
from ._int8_cache_graph import attend as attend_on_cpu
from ._int8_claims import by_row, keys_by_token, values_by_feature
from ._int8_tiles import refusal_on_cuda
from ._on_device import started
from ._pairs import keys_read
from .problem import Attention, AttentionInputs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._code import Configuration

FEW_QUERIES = 16
"""Query tokens up to which it is a decode step."""
REGISTERS = 255
"""Of a thread, at most: how many programs share a multiprocessor is counted with them."""


def claim_on_cpu(problem: Attention, setup: Setup, inputs: AttentionInputs) -> torch.Tensor:  # noqa: ARG001
    """Float64 attention on keys and values after quantization and back; q is exact."""
    return problem.reference(inputs.replace(k=keys_by_token(inputs), v=values_by_feature(inputs)))


def claim_on_cuda(problem: Attention, setup: Setup, inputs: AttentionInputs) -> torch.Tensor:
    """The same with queries in 8 bit, a step for each."""
    return claim_on_cpu(problem, setup, inputs.replace(q=by_row(inputs.q)))


def claim(problem: Attention, setup: Setup, inputs: AttentionInputs) -> torch.Tensor:
    """That of the device."""
    return (claim_on_cuda if setup.device.type == "cuda" else claim_on_cpu)(problem, setup, inputs)


def prepare(problem: Attention, setup: Setup, inputs: AttentionInputs) -> Cache:  # noqa: ARG001
    """The cache, which is made once for many decode steps: that is not timed, but its seconds and bytes are reported."""
    return (for_cuda if setup.device.type == "cuda" else for_cpu)(inputs)


def refuses(problem: Attention, device: Device) -> str | None:
    """Prompts, very long caches on a CPU, and on a GPU what its kernel is not written for."""
    if problem.q_len > FEW_QUERIES:
        return f"is for decode steps of at most {FEW_QUERIES} query tokens, not {problem.q_len}: attention/int8 quantizes as it goes"
    if device.kind == "cuda":
        return refusal_on_cuda(problem, device)
    if problem.kv_len > LONGEST:
        return f"adds up weights and values in 32 bit on a CPU: it takes at most {LONGEST} keys, not {problem.kv_len}"
    if problem.dtype == "bfloat16":
        return "ONNX Runtime's CPU provider has no bfloat16 arithmetic: choose float32 or float16"
    return None


def ran(problem: Attention, setup: Setup, trace: Trace) -> str:
    """The judge of its identity."""
    if setup.device.type != "cuda":
        return integer_products(2)(problem, setup, trace)
    return triton_kernels("int8_split_kernel", alone=True)(problem, setup, trace)


def device_code(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form in which its kernel may be launched on a card."""
    yield from _int8_cache_code.configurations(capability)


@kernel(
    Attention,
    family="int8",
    accepts=("causal", "padding", "window", "ragged"),
    requires=("cpu:onnx", "cpu:onnxruntime", "cuda:triton"),
    approximate=True,
    own_allocator=("cpu",),
    claim=claim,
    prepare=prepare,
    refuses=refuses,
    identified=ran,
    device_code=device_code,
)
def int8_cache(problem: Attention, setup: Setup) -> Run:
    """A decode step over an 8-bit cache, quantized ahead: not timed, but reported. Keys have a scale each, values one per feature.

    Keys lose their mean over tokens before. On a GPU Triton (split-KV): 8-bit queries, integer scores, weights × values in 16 bit.
    On a CPU one ONNX graph whose products are both of integers; queries are numbers of two 8-bit digits, weights of three.
    """
    if setup.device.type == "cpu":
        return attend_on_cpu(problem, setup)
    return started(launched(problem, Card.of(setup.device)), prepare(problem, setup, setup.calibration))


def launched(problem: Attention, card: Card) -> Run:
    """cache, as `for_cuda` makes it -> output by the Triton kernels, cut for the card; in Triton's interpreter on a CPU."""
    from ._int8_cache_triton import decode

    rows = problem.q_len * problem.group
    cut = _int8_cache_code.tile(rows, problem.head_dim, card.capability)
    resident = _decode_splits.resident(cut, problem.head_dim, 1, card.capability, REGISTERS)
    seen = max(keys_read(problem, length) for length in problem.lengths())
    splits = _decode_splits.splits(problem.batch, problem.kv_heads, -(-rows // cut.rows), seen, cut, card.multiprocessors, resident)
    meaning = {name: getattr(problem, name) for name in ("scale", "ragged", "window")} | {"causal": problem.triangular}
    return lambda cache: decode(
        cache.q, cache.k8, cache.v8, cache.k_steps, cache.v_steps, lengths=cache.lengths, cut=cut, splits=splits, **meaning
    )
