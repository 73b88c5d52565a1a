"""FlexAttention: a compiled tiled kernel, with the mask as code and as a map of blocks to visit."""

from __future__ import annotations

from .._identity import compiled_whole
from ..registry import Run, Setup, kernel
from ._flex_calls import refuses, through_flex
from .problem import EVERYTHING, Attention


@kernel(
    Attention,
    accepts=EVERYTHING,
    directions=("forward", "backward"),
    refuses=refuses,
    identified=compiled_whole(),
)
def flex(problem: Attention, setup: Setup) -> Run:
    """FlexAttention, compiled: blocks of keys that nobody sees are skipped, pages are read where they lie.

    Heads that share keys become rows of one head where queries are few. On a GPU those go to its decoding kernel, which
    splits the keys; it is what FlexAttention itself would choose, so that there is no row for it alone.
    """
    return through_flex(problem, setup)
