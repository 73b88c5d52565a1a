"""How float32 numbers are multiplied by Triton kernels of ours."""

from __future__ import annotations

import torch


def precision() -> str:
    """Exactly, unless torch is allowed to take TF32: "ieee" or "tf32"."""
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"
