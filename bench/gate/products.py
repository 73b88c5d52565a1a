"""Floating-point operations of torch's matrix products and attentions, by the shapes of their operands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

PRODUCTS = {
    "aten::linear": (0, 1),
    "aten::matmul": (0, 1),
    "aten::mm": (0, 1),
    "aten::bmm": (0, 1),
    "aten::_int_mm": (0, 1),
    "aten::_scaled_mm": (0, 1),
    "aten::addmm": (1, 2),
    "aten::addbmm": (1, 2),
    "aten::baddbmm": (1, 2),
    "aten::_addmm_activation": (1, 2),
}
"""Operator -> places of the two factors among its operands."""
ATTENTIONS = (
    "aten::scaled_dot_product_attention",
    "aten::_scaled_dot_product_attention_math",
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "aten::_scaled_dot_product_fused_attention_overrideable",
)
"""Operators whose first operands are q, k and v."""


def is_product(name: str) -> bool:
    """Whether torch's operator of that name multiplies matrices."""
    return name in PRODUCTS or name in ATTENTIONS


def product_flops(name: str, shapes: Sequence[Any]) -> int:
    """Multiply-adds counted twice of such an operator; 0 where shapes were not recorded. What masks hide counts too.

    `shapes` are those of all its arguments in order, as the profiler gives them: empty for what is no tensor.
    """
    shapes = [*shapes, (), (), ()]
    if name in ATTENTIONS:
        q, k, v = shapes[:3]
        return 2 * int(math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])) if q and k and v else 0
    left, right = (shapes[place] for place in PRODUCTS[name])
    if not left or not right:
        return 0
    left = left if len(left) > 1 else (1, *left)
    right = right if len(right) > 1 else (*right, 1)
    columns = right[-2] if name == "aten::linear" else right[-1]
    batch = np.broadcast_shapes(tuple(left[:-2]), tuple(right[:-2]))
    return 2 * int(math.prod(batch) * left[-2] * left[-1] * columns)
