"""8-bit integers: weights quantized ahead of time, activations in every call, and the same rounding in float64 for claims."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812

from .registry import Setup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """(uint8 [rows, in] with zero point 128, int8 [in, out]) -> int32: how a library multiplies integers."""

LEVELS = 127
FEWER_LEVELS = 63
"""Of weights, where x86 has no 8-bit instructions (VNNI): 2 · 255 · 63 still fits the 16 bit in which it adds pairs of products."""
FEWEST_ROWS = 32
"""torch._int_mm on CUDA takes more than 16 rows; fewer are filled up to these."""


@dataclass(frozen=True)
class Int8Weight:
    """A matrix [out, in] in 8 bit with one scale per output channel, symmetric about zero."""

    values: torch.Tensor
    """int8 [out, in]"""
    scales: torch.Tensor
    """float32 [out]"""

    def dequantized(self) -> torch.Tensor:
        """float64: what the integers stand for."""
        return self.values.double() * self.scales.double()[:, None]


def quantized(weight: torch.Tensor, levels: int | None = None) -> Int8Weight:
    """Scales from each channel's largest magnitude, values rounded to nearest, from -levels to levels: LEVELS of them, or fewer."""
    scales = _scales(weight.float(), levels)
    values = (weight.float() / scales).round_().to(torch.int8)
    return Int8Weight(values.contiguous(), scales.squeeze(1))


def int8_linear(x: torch.Tensor, weight: Int8Weight, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x weightᵀ + bias in integers: x is quantized with one scale per token, anew in every call. In x's dtype."""
    rows = x.reshape(-1, x.shape[-1]).float()
    scales = _scales(rows)
    values = (rows / scales).round_().to(torch.int8)
    if len(values) < FEWEST_ROWS:
        values = F.pad(values, (0, 0, 0, FEWEST_ROWS - len(values)))
    products = torch._int_mm(values, weight.values.t())[: len(rows)]  # noqa: SLF001 - the only integer product torch has
    result = products.float().mul_(scales).mul_(weight.scales)
    if bias is not None:
        result = result.add_(bias)
    return result.to(x.dtype).view(*x.shape[:-1], -1)


def rounded_per_token(x: torch.Tensor) -> torch.Tensor:
    """x after quantizing each row by its largest magnitude, as `int8_linear` does, in x's own dtype (float64 for claims)."""
    scales = _scales(x)
    return (x / scales).round() * scales


def rounded_per_tensor(x: torch.Tensor) -> torch.Tensor:
    """x after ONNX's DynamicQuantizeLinear: 256 levels from the smallest to the largest value, zero among them."""
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, 1.0, scale)
    zero = (-low / scale).round().clamp(0, 255)
    return (((x / scale).round() + zero).clamp(0, 255) - zero) * scale


def weight_levels(device: torch.device) -> int:
    """How many levels weights may have for the products of ONNX Runtime, or of torch._int_mm on a GPU, to be exact here.

    LEVELS, or FEWER_LEVELS. Raises RuntimeError where neither is.
    """
    return exact_levels(
        _onnx_product if device.type == "cpu" else lambda left, right: torch_product(left.to(device), right.to(device)).cpu()
    )


def exact_levels(product: Product, tried: Sequence[int] = (LEVELS, FEWER_LEVELS)) -> int:
    """The first of so many levels with which `product` is exact: values at the ends of the range show it.

    Raises RuntimeError where none is: products would be silently wrong.
    """
    for levels in tried:
        if _exact(product, levels):
            return levels
    raise RuntimeError("this machine's 8-bit integer products saturate: results would be silently wrong, so int8 is not measured")


def _exact(product: Product, levels: int) -> bool:
    generator = torch.Generator().manual_seed(0)
    left = torch.randint(0, 256, (FEWEST_ROWS, 64), generator=generator, dtype=torch.int32)
    left[::2] = 255
    right = torch.randint(-levels, levels + 1, (64, 16), generator=generator, dtype=torch.int32)
    right[:, ::2] = levels
    found = product(left.to(torch.uint8), right.to(torch.int8))
    return torch.equal(found.long(), (left.long() - 128) @ right.long())


def torch_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """uint8 with zero point 128 times int8 -> int32 by torch._int_mm, both of them signed and the matrix transposed in memory."""
    return torch._int_mm((left.int() - 128).to(torch.int8), right.t().contiguous().t())  # noqa: SLF001


def _scales(x: torch.Tensor, levels: int | None = None) -> torch.Tensor:
    """[rows, 1]: a row of zeros gets a scale too."""
    return x.abs().amax(dim=-1, keepdim=True).div_(levels or LEVELS).clamp_(min=1e-30)


def _onnx_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """uint8 x int8 -> int32 with zero point 128, as the graphs do it."""
    from ._onnxgraph import Graph
    from ._onnxsession import session

    graph = Graph()
    product = graph.add("MatMulInteger", "x", graph.constant(right), graph.constant(torch.tensor(128, dtype=torch.uint8)))
    shape = (left.shape[0], right.shape[1])
    model = graph.finished({"x": ("uint8", left.shape)}, product, "int32", shape)
    return session(model, Setup(torch.device("cpu")), ["x"], "y").run({"x": left}, torch.empty(shape, dtype=torch.int32))
