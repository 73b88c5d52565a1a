"""What may be chosen of the kernel for Hopper: the tile for a problem, its key, and the candidates that a device can be asked about.

No torch and no Triton.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING

from .._tuned import Chosen, Key, architecture, choose, length_class, triton_version
from .._tuning import Task
from . import _hopper_code as code
from ._hopper_tiles import DECODE, Tile, tile
from ._pairs import keys_read

if TYPE_CHECKING:
    from .._cards import Card
    from .._code import Configuration
    from .problem import Attention

FEW_QUERIES = 16
"""Query tokens up to which the heads of a group are packed into one tile and the keys are split among programs."""
SPARE = 40
"""Registers of a thread beside accumulators, scores and weights."""


def packed(problem: Attention) -> bool:
    """Whether the rows of a tile are those of a group of heads."""
    return problem.q_len <= FEW_QUERIES


def chosen(problem: Attention, card: Card) -> Chosen[Tile]:
    """The tile that the kernel is launched with for this problem, and where it comes from."""
    return choose(key(problem, card), default(problem, card))


def default(problem: Attention, card: Card) -> Tile:
    """The tile where nobody measured."""
    if packed(problem):
        return DECODE[problem.head_dim]
    return tile(problem.head_dim, problem.q_len, problem.batch * problem.heads, card.multiprocessors)


def key(problem: Attention, card: Card) -> Key:
    """By the keys that a query sees; decoding, and too few tiles for all multiprocessors, are cases of their own."""
    traits = "decode" if packed(problem) else "few tiles" if default(problem, card).groups == 1 else ""
    return Key(
        function="hopper_kernel",
        architecture=architecture(card.capability),
        triton=triton_version(),
        dtype=problem.dtype,
        size=f"head_dim {problem.head_dim}",
        causal=problem.triangular,
        length=length_class(max(1, keys_read(problem, problem.kv_len))),
        traits=traits,
    )


def task(problem: Attention, card: Card) -> Task:
    """What there is to choose."""
    usual = default(problem, card)
    return Task(
        key=key(problem, card),
        default=usual,
        candidates=tuple(cut for cut in candidates() if cut != usual),
        why_not=lambda cut: None if cut == usual else why_not(cut, problem, card),
        forms=lambda cut: forms(cut, problem),
    )


def candidates() -> tuple[Tile, ...]:
    """One group for two programs on a multiprocessor, or for one; two groups that take turns, or do not."""
    kinds = ((1, 128, False), (1, 168, False), (2, 168, True), (2, 168, False))
    cuts = product(kinds, (32, 64, 128), (2, 3, 4, 6))
    return tuple(Tile(groups, bs, stages, registers, in_turn) for (groups, registers, in_turn), bs, stages in cuts)


def why_not(cut: Tile, problem: Attention, card: Card) -> str | None:
    """Why arithmetic leaves a tile out, in a sentence."""
    width = problem.head_dim
    shared = 2 * width * (cut.rows + 2 * cut.stages * cut.bs) + 1024
    if shared > card.shared_bytes:
        return f"takes {shared >> 10} KB of shared memory: a program has {card.shared_bytes >> 10}"
    # accumulators and scores in 32 bit, weights of two blocks in 16, on the 128 threads of a group
    numbers = (width + 2 * cut.bs) // 2
    if numbers + SPARE > cut.held:
        return f"holds {numbers} numbers in a thread: {cut.held - SPARE} leave room for the rest of its {cut.held} registers"
    if width > 128 and cut.registers <= 128:
        return f"multiplies {width} columns at once: the assembler wants more than {cut.registers} registers at the launch for that"
    if cut.rows >= 2 * max(problem.q_len * (problem.group if packed(problem) else 1), 64):
        return f"half of its {cut.rows} rows are not there"
    if cut.bs >= 2 * max(problem.kv_len, 32):
        return f"half of its {cut.bs} keys are not there: the problem has {problem.kv_len}"
    return None


def forms(cut: Tile, problem: Attention) -> Iterator[Configuration]:
    """What this problem asks for, and everything that problems with the same key may ask for."""
    lengths = 2 if problem.ragged else int(problem.padding)
    tokens = (problem.q_len if problem.triangular else 1) if packed(problem) else 0
    wanted = {
        "as asked": code.Asked(problem.triangular, lengths, tokens),
        "ragged": code.Asked(problem.triangular, 2, tokens),
    }
    wanted |= {"ragged, split": code.Asked(problem.triangular, 2, tokens, partial=True)} if tokens else {}
    for name, asked in wanted.items():
        yield code.configuration(problem.head_dim, name, asked, cut, dtype=problem.dtype)
