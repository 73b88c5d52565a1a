"""FlexAttention with the tiles that were fastest when they were tried."""

from __future__ import annotations

from .._identity import compiled_whole
from ..registry import Run, Setup, kernel
from ._flex_calls import refuses, through_flex
from .problem import EVERYTHING, Attention


@kernel(
    Attention,
    family="flex",
    devices=("cuda",),
    accepts=EVERYTHING,
    directions=("forward", "backward"),
    refuses=refuses,
    identified=compiled_whole(),
)
def flex_tuned(problem: Attention, setup: Setup) -> Run:
    """FlexAttention under torch.compile's max-autotune: several tiles are tried in the build, and the fastest stays.

    On a CPU there is a single choice, and thus no such row.
    """
    return through_flex(problem, setup, tuned=True)
