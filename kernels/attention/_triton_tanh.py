"""What our Triton kernels compute softmax and softcaps with: base-2 constants, and tanh. It needs Triton to be imported."""
# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def tanh(x, EXACT: tl.constexpr):
    """tanh through exp2, which may overflow and underflow; EXACT keeps the relative error of small x, by a polynomial."""
    y = 1.0 - 2.0 / (tl.exp2(x * (2.0 * LOG2_E)) + 1.0)
    if EXACT:
        s = x * x
        # minimax on |x| <= 0.56, relative error 4e-8
        small = ((0.0162739 * s - 0.05258686) * s + 0.13319421) * s - 0.3333289
        y = tl.where(tl.abs(x) < 0.55, x + x * s * small, y)
    return y
