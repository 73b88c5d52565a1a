"""A made-up explanation with everything that its page must be able to show, hostile names included."""

from __future__ import annotations

import math

from kerneldyno.bench.explanation import Changed, Explained, Explanation, HeadNumbers

HOSTILE = "<script>alert(1)</script>"


def cells(shift: float) -> list[list[float]]:
    rows = [[math.exp(-abs(query - key) * (1 + shift)) for key in range(24)] for query in range(24)]
    return [[float(f"{value / sum(row):.3g}") for value in row] for row in rows]


def numbers(head: int, moved: float) -> HeadNumbers:
    changed = Changed(query=7, moved=moved * 3, exact_key=7, exact_weight=0.5, key=9, weight=0.4)
    return HeadNumbers(
        head=head, total=1.0, moved_mean=moved, moved_worst=moved * 3, divergence=moved**2, kept=1 - moved, same_top=0.75,
        entropy_exact=2.0, entropy=1.5, changed=(changed,),
    )  # fmt: skip


def gone(head: int) -> HeadNumbers:
    return HeadNumbers(
        head=head, total=0.0, moved_mean=1.0, moved_worst=1.0, divergence=None, kept=0.0, same_top=0.0, entropy_exact=2.0, entropy=None
    )


def exact_like(head: int) -> HeadNumbers:
    return HeadNumbers(
        head=head, total=1.0, moved_mean=1e-7, moved_worst=2e-7, divergence=0.0, kept=1.0, same_top=1.0, entropy_exact=2.0, entropy=2.0
    )


def explanation() -> Explanation:
    heads = (0, 5)
    empty = [[0.0] * 24 for _ in range(24)]
    kernels = (
        Explained(kernel="attention/int8", summary="8 bit", approximate=True, unexplained=1e-5,
                  heads=(numbers(0, 0.004), numbers(5, 0.01)), maps={0: cells(0.1), 5: cells(0.3)}),
        Explained(kernel="attention/pruned", summary="Half", approximate=True,
                  heads=(gone(0), exact_like(5)), maps={0: empty, 5: cells(0)}),
        Explained(kernel=f"attention/{HOSTILE}", summary=HOSTILE, approximate=False, unexplained=0.2,
                  heads=(numbers(0, 0.3), numbers(5, 0.2)), maps={0: cells(1), 5: cells(2)}),
        Explained(kernel="attention/int8_cache", summary="", approximate=True, reason="is for decode steps"),
    )  # fmt: skip
    return Explanation(
        version="0.1.0", label=f"1×8×48×64 fp32 {HOSTILE} layer 3", device="a CPU", seed=0, q_len=48, kv_len=48, group=2, heads=heads,
        query_cell=2, key_cell=2, exact=dict.fromkeys(heads, cells(0)), kernels=kernels, notes=("Tokens are drawn",),
        command="kerneldyno explain",
    )  # fmt: skip
