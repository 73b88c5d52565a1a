"""What presets are made of: shapes of problems as plain data, and the sizes of known models that several presets share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Fields = dict[str, Any]
Shape = tuple[str, Fields]  # operator, fields of its problem


@dataclass(frozen=True)
class Preset:
    """Problems that belong together, and how a sweep over them is limited."""

    name: str
    summary: str
    problems: tuple[Shape, ...]
    protocol: str = "default"
    at_most: tuple[tuple[str, int], ...] = ()
    """(kernel glob, number of groups): kernels that are slow to build, or many of a kind, are measured in the first groups only."""


def attention(**fields: Any) -> Shape:
    """One attention problem."""
    return "attention", fields


def feedforward(**fields: Any) -> Shape:
    """One feed-forward problem."""
    return "feedforward", fields


def layer(**fields: Any) -> Shape:
    """One encoder-layer problem."""
    return "layer", fields


def grid(batches: Iterable[int], lengths: Iterable[int]) -> list[tuple[int, int]]:
    """Every batch with every length."""
    return [(batch, length) for batch in batches for length in lengths]


SEED = {"dim": 512, "hidden_dim": 2048}
SEED_HEADS = {"heads": 8, "head_dim": 64}
BERT_HEADS = {"heads": 12, "head_dim": 64}
LLAMA_8B = {"heads": 32, "kv_heads": 8, "head_dim": 128}
LLAMA_8B_MLP = {"dim": 4096, "hidden_dim": 14336, "activation": "silu", "norm": "rmsnorm", "gated": True, "bias": False}
