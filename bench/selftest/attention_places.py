"""The attention problems at which faults are planted: short and awkward ones, and long contexts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kerneldyno.kernels.attention.problem import Attention

ALL = ("float32", "bfloat16", "float16")
SINGLE = ("float32",)
HALF = ("bfloat16", "float16")

SHORT = Attention(batch=2, heads=4, q_len=200, head_dim=64)
ALIGNED = Attention(batch=2, heads=4, q_len=256, head_dim=64)
"""A multiple of every tile: what is wrong at the edges only does not show in it."""
LAST_ROWS = Attention(batch=1, heads=1, q_len=256, kv_len=32768, head_dim=64)
"""The last rows of a long context: its outputs are small, and one key is a thin thing."""
LONG = Attention(batch=1, heads=1, q_len=2048, head_dim=64)


def places(*dtypes: str, length: str = "all", **features: Any) -> tuple[Attention, ...]:
    """Short problems in each dtype, and the long ones, with these features; `length` may leave it at "short" or "long"."""
    dtypes = dtypes or ALL
    short = tuple(replace(SHORT, dtype=dtype, **features) for dtype in dtypes)
    alone = {name: value for name, value in features.items() if name not in ("heads", "kv_heads", "batch")}
    many = {name: features[name] for name in ("heads", "kv_heads", "batch") if name in features}
    wide = dtypes[:2]
    end = tuple(_with(LAST_ROWS, dtype=dtype, **{"causal": True, **alone}, **many) for dtype in wide)
    square = (_with(LONG, dtype=wide[-1], **alone, **many),) if not many else ()
    long = (*end, *square)
    return {"all": (*short, *long), "short": short, "long": long}[length]


def in_both(problem: Attention) -> tuple[Attention, ...]:
    """The problem in float32 and in bfloat16."""
    return (replace(problem, dtype="float32"), replace(problem, dtype="bfloat16"))


def _with(problem: Attention, **changes: Any) -> Attention:
    """`replace` that forgets how many key-value heads there were when the heads change."""
    if "heads" in changes and "kv_heads" not in changes:
        changes = {**changes, "kv_heads": None}
    return replace(problem, **changes)
