"""What the study measures: shipped kernels at one size each, and the names of their planted variants. No torch, no kernels."""

from __future__ import annotations

SUBJECTS = {"attention/sdpa": 256, "attention/onnxrt": 128, "feedforward/eager": 64, "layer/sdpa": 64}
"""Kernel -> sequence length of its problem, the rest as without any preset: calls of 0.2 to 3 ms on two cores."""

BASE, COPY = "base", "copy"
SLOWER = {"slower_by_2": 0.02, "slower_by_5": 0.05, "slower_by_10": 0.10, "slower_by_20": 0.20}
"""Variant -> share by which each of its calls takes longer."""
VARIANTS = (BASE, COPY, *SLOWER)
OTHERS = VARIANTS[1:]
"""Those that are compared with the base."""


def planted(kernel: str, variant: str) -> str:
    """The name of a variant: "attention/sdpa_copy"."""
    return f"{kernel}_{variant}"
