"""Rotary positions (RoPE, arXiv 2104.09864): frequencies, their scaling for longer texts, tables, and the rotation itself."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch

SCALINGS = {"linear": 1, "llama3": 4}
"""Kinds of scaling, and how many numbers each takes: factor; factor, low and high frequency factor, and original length."""


def parsed(scaling: str) -> tuple[str, tuple[float, ...]]:
    """The kind of "llama3:8,1,4,8192" and its numbers; ("", ()) of an empty text. Raises ValueError for anything else."""
    if not scaling:
        return "", ()
    kind, _, text = scaling.partition(":")
    try:
        numbers = tuple(float(word) for word in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != SCALINGS.get(kind) or not all(0 < number < math.inf for number in numbers):
        raise ValueError(f"rope_scaling {scaling!r} is impossible: give linear:FACTOR or llama3:FACTOR,LOW,HIGH,LENGTH, or nothing")
    if kind == "llama3" and numbers[1] >= numbers[2]:
        raise ValueError(f"rope_scaling {scaling!r} is impossible: the low frequency factor must be less than the high one")
    return kind, numbers


def required(theta: Any, scaling: str, head_dim: int) -> float:
    """theta as a float. Raises ValueError for rotary positions that cannot be."""
    if isinstance(theta, bool) or not isinstance(theta, int | float) or not (theta == 0 or 1 < theta < math.inf):
        raise ValueError(f"rope_theta {theta!r} is impossible: give a number above 1, or 0 for none")
    kind, _ = parsed(scaling)
    if kind and not theta:
        raise ValueError(f"rope_scaling {scaling!r} scales nothing without rope_theta: give one, such as 10000")
    if theta and head_dim % 2:
        raise ValueError(f"head_dim {head_dim} cannot be turned in pairs by rope_theta: give an even one")
    return float(theta)


def frequencies(head_dim: int, theta: float, scaling: str) -> torch.Tensor:
    """float64 [head_dim / 2]: radians per position of each pair of features.

    "linear" divides all by a factor (arXiv 2306.15595); "llama3" only those whose wave is longer than what the model was
    first trained on, those between with a smooth transition (as in Hugging Face's `_compute_llama3_parameters`).
    """
    plain = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    kind, numbers = parsed(scaling)
    if kind == "linear":
        return plain / numbers[0]
    if kind == "llama3":
        factor, low, high, length = numbers
        turns = length * plain / (2 * math.pi)  # of a wave within the original length
        share = ((turns - low) / (high - low)).clamp(0, 1)
        return plain * (share + (1 - share) / factor)
    return plain


@lru_cache(maxsize=8)
def angles(seq_len: int, head_dim: int, theta: float, scaling: str) -> torch.Tensor:
    """float64 [seq_len, head_dim / 2]: position times frequency."""
    return torch.arange(seq_len, dtype=torch.float64)[:, None] * frequencies(head_dim, theta, scaling)


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x [..., seq_len, head_dim] turned by the angles of `cos` and `sin` [seq_len, head_dim / 2].

    Feature i is paired with feature i + head_dim / 2, as in Hugging Face's models.
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
